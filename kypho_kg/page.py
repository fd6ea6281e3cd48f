"""One patient as one page to read and to print: a picture, what each source says, and the whole proof."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kypho_kg import spine
from kypho_kg.applicability import choice_of_procedure
from kypho_kg.candidacy import Answer, Assessment, CaseAnswer, ClauseResult, documentation
from kypho_kg.coverage import coverage_line
from kypho_kg.errors import UsageError
from kypho_kg.evaluation import Truth
from kypho_kg.explanation import Explained
from kypho_kg.guidelines import ABSOLUTE, ADVISES, EXCLUDES, RELATIVE, UNVERIFIED, Guideline
from kypho_kg.knowledge import Knowledge
from kypho_kg.narrative import Node, Section, narrate, narrate_case
from kypho_kg.reasons import decisive_clauses, no_candidate_either_way
from kypho_kg.report import DISCLAIMER, level_words
from kypho_kg.summary import beside_lines, bridge_lines, bridge_words, lesion_words
from kypho_kg.templating import css_text, template
from kypho_kg.terminal import unused_lines, why_lines
from kypho_kg.verdicts import UNDETERMINED
from kypho_kg.vocabulary import DCTERMS, KYPHO, LABEL, TYPE
from kypho_kg.words import reason_words, said

SILENT = frozenset({"NotApplicable", "NoVerdict"})
MOST_EVIDENCE = 12
"""Statements of evidence that are shown."""
_FOR, _AGAINST, _NEITHER = "for", "against", "no difference, or not settled"
_SIDES = {
    KYPHO + "ShowsBenefit": _FOR, KYPHO + "ShowsHarm": _AGAINST,
    KYPHO + "ShowsNoDifference": _NEITHER, KYPHO + "ShowsInconclusive": _NEITHER,
}  # fmt: skip
_OTHER_SIDE = {_FOR: _AGAINST, _AGAINST: _FOR, _NEITHER: _NEITHER}


@dataclass(frozen=True, slots=True)
class Cell:
    """What one source says of one lesion."""

    letter: str
    tone: str
    words: str
    beside: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One source over all lesions."""

    guideline: Guideline
    force: str
    cells: tuple[Cell | None, ...]
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """Sections that are the same for some lesions; these are named where there are others."""

    lesions: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A statement of evidence in a line."""

    text: str
    design: str
    citation: str
    url: str
    notes: str


Pair = tuple[Explained, Assessment]


def page(answers: Sequence[Answer], explained: Sequence[Explained], *, guideline: str | None = None) -> str:
    """One patient as an HTML document that needs nothing else.

    :param guideline: id of the source that is open and printed in full; by default the first policy in force that
        judges a lesion, else the first source that does.
    :raises UsageError: for no patient or several, and for a guideline that was not asked.
    """
    patients = sorted({a.record.patient for a in answers})
    if len(patients) != 1:
        raise UsageError(f"a page shows one patient, not {len(patients)}: {', '.join(patients) or 'none was given'}")
    k = answers[0].knowledge
    dates = ", ".join(sorted({str(a.as_of) for a in answers}))
    asked: dict[str, list[Pair]] = {}
    for e in explained:
        for a in e.case.assessments:
            asked.setdefault(a.guideline.id, []).append((e, a))
    chosen = _chosen(asked, guideline)
    rows = {id_: _row(k, explained, pairs) for id_, pairs in asked.items()}
    of_layer = ((layer, [i for i in rows if KYPHO + rows[i].guideline.layer == layer]) for layer in k.layers)
    layers = [(layer, ids) for layer, ids in of_layer if ids]
    techniques = sorted({t for e in explained for t in choice_of_procedure(e.case.snapshot, "technique")})
    evidence, found = _evidence(k, techniques)
    return template("patient.html.jinja").render(
        answer=answers[0],
        dates=dates,
        records=[a.record for a in answers],
        disclaimer=DISCLAIMER,
        coverage=coverage_line(k, [a.record for a in answers]),
        running=css_text(f"Patient {patients[0]}, as of {dates}"),
        proposed=tuple(dict.fromkeys(line for e in explained for line in _proposed(k, e.case))),
        lesions=[_lesion(k, e.case) for e in explained],
        drawings=[d for layer, ids in layers if (d := _drawing(k, layer, ids, asked, chosen))],
        legend=_legend(k, asked.values()),
        cement=tuple(dict.fromkeys(filter(None, (spine.earlier_cement(k, e.case) for e in explained)))),
        matrix=[(k.plain(layer), *_split(ids, rows, asked)) for layer, ids in layers],
        columns=[lesion_words(k, e.case) for e in explained],
        bridges=list(bridge_lines([e.case for e in explained])),
        told=_told_by_title(k, explained),
        unused=tuple(dict.fromkeys(line for e in explained for line in unused_lines(k, e.case))),
        sources=[(rows[i], _told(k, asked[i])) for _, ids in layers for i in ids],
        chosen=chosen,
        techniques=[k.plain(t) for t in techniques],
        evidence=evidence,
        more_evidence=found - sum(len(lines) for _, lines in evidence),
        k=k,
    )


# -- which source comes first


def _judges(pairs: Iterable[Pair]) -> bool:
    return any(spine.badge(a)[1] != "none" for _, a in pairs)


def _chosen(asked: Mapping[str, Sequence[Pair]], named: str | None) -> str:
    """The source that is open: the named one, else a policy in force that judges, else the first that judges."""
    if named is not None and named not in asked:
        raise UsageError(f"guideline {named!r} was not asked about this patient; asked: {', '.join(asked) or 'none'}")
    if named is not None:
        return named
    judging = [i for i, pairs in asked.items() if _judges(pairs)]
    binding = (i for i in judging if any(a.guideline.is_policy and a.in_force for _, a in asked[i]))
    return next(binding, next(iter(judging), next(iter(asked), "")))


def _split(
    ids: Iterable[str], rows: Mapping[str, Row], asked: Mapping[str, Sequence[Pair]]
) -> tuple[list[Row], list[str]]:
    """The rows of a layer, those with a verdict first, and the ids of the sources that do not apply."""
    quiet = [i for i in ids if all(a.verdict == "NotApplicable" for _, a in asked[i])]
    shown = sorted((i for i in ids if i not in quiet), key=lambda i: not _judges(asked[i]))
    return [rows[i] for i in shown], quiet


# -- the head


def _proposed(k: Knowledge, case: CaseAnswer) -> Iterator[str]:
    """What is proposed, for which lesions, when, where and at whose cost."""
    for name in ("technique", "placeOfService", "payer"):
        values = sorted(map(k.label, choice_of_procedure(case.snapshot, name)))
        if values:
            yield f"{k.plain(k.by_name[name].iri)}: {' or '.join(values)}"
    p = case.record.procedure
    if p and p.lesions is not None:
        yield f"lesions: {', '.join(p.lesions) or 'none'}"
    if p and p.service_date:
        yield f"on {p.service_date}"
    if p and p.state:
        yield f"state: {p.state}"


def _lesion(k: Knowledge, case: CaseAnswer) -> str:
    outside = "" if case.in_session or not case.record.procedure else " (not in the proposed session)"
    return f"{case.lesion.id}: {level_words(k, case) or 'level not known'}{outside}"


# -- the drawing


def _drawing(
    k: Knowledge, layer: str, ids: Sequence[str], asked: Mapping[str, Sequence[Pair]], chosen: str
) -> tuple[str, str, spine.Drawing] | None:
    """The spine by one source of a layer: the chosen one, else the first that judges; none where none does."""
    judging = [i for i in ids if _judges(asked[i])]
    if not judging:
        return None
    id_ = chosen if chosen in ids else judging[0]
    marks = [spine.mark(k, e.case, a) for e, a in asked[id_]]
    return k.plain(layer), id_, spine.draw(k, marks)


def _legend(k: Knowledge, asked: Iterable[Sequence[Pair]]) -> list[tuple[str, str, str]]:
    """Letter, tone and words of the verdicts that occur."""
    used = {spine.badge(a) for pairs in asked for _, a in pairs}
    return [(*badge, k.plain(KYPHO + v)) for v, badge in spine.BADGES.items() if badge in used]


# -- the matrix


def _row(k: Knowledge, explained: Sequence[Explained], pairs: Sequence[Pair]) -> Row:
    by_case = {id(e): a for e, a in pairs}
    first = pairs[0][1]
    force = {True: "in force" if first.guideline.is_policy else "", False: "not in force", None: "in force: not known"}
    told: dict[str, list[str]] = {}
    for e, a in pairs:
        for line in _reason(k, e, a):
            told.setdefault(line, []).append(e.case.lesion.id)
    why = (line if len(some) == len(explained) else f"{', '.join(some)}: {line}" for line, some in told.items())
    cells = tuple(_cell(by_case.get(id(e))) for e in explained)
    return Row(first.guideline, force[first.in_force], cells, tuple(why))


def _cell(a: Assessment | None) -> Cell | None:
    if a is None:
        return None
    letter, tone = spine.badge(a)
    beside = [line for line, _ in beside_lines(a)]
    if a.unbridged and a.unbridged.verdict != a.verdict:
        beside.append(bridge_words(a))
    return Cell(letter, tone, said(a), tuple(beside))


def _reason(k: Knowledge, explained: Explained, a: Assessment) -> Iterator[str]:
    """What decides, or is missing, in a line or two; and what the file does not show."""
    clauses = decisive_clauses(a)
    if a.verdict in {"NotIndicated", "Contraindicated"} or no_candidate_either_way(a):
        for clause, leaves in reason_words(k, a)[:2]:
            detail = f" [{leaves[0]}{'; ...' if len(leaves) > 1 else ''}]" if leaves else ""
            yield f"{clause.recommendation.clause} {clause.recommendation.label}: {clause.truth.words}{detail}"
        if len(clauses) > 2:
            yield f"and {len(clauses) - 2} more"
    elif a.verdict == UNDETERMINED:
        wanted = _few(k.plain(n.feature) for n in explained.needs(a))
        yield f"missing: {wanted}" if wanted else f"left open by the source: {_few(_names(clauses))}"
    elif a.verdict == "Rated":
        yield from filter(None, (_few(f"{c.recommendation.clause} {c.recommendation.label}" for c, _ in a.ratings),))
    elif a.verdict == "NoVerdict":
        for how, effects in (("objects", (EXCLUDES, ABSOLUTE, RELATIVE)), ("advises", (ADVISES,))):
            met = _few(_names(c for effect in effects for c in a.having(effect, Truth.MET)))
            yield from filter(None, (met and f"{how}: {met}",))
    elif a.verdict != "NotApplicable" and clauses:
        how = {"CandidateWithCaution": "caution", "CandidateScreeningOpen": "to be screened"}.get(a.verdict, "met")
        yield f"{how}: {_few(_names(clauses))}"
    papers = documentation(a)[1]
    if papers and a.verdict not in {*SILENT, "NotIndicated", "Contraindicated"}:
        yield f"not shown in the file: {_few(c.partition('/')[2] for c in papers)}"


def _names(clauses: Iterable[ClauseResult]) -> Iterator[str]:
    return (c.recommendation.label for c in clauses)


def _few(words: Iterable[str], most: int = 3) -> str:
    found = list(dict.fromkeys(filter(None, words)))
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


# -- what is told in sections


def _told(k: Knowledge, pairs: Sequence[Pair]) -> list[Told]:
    """The explanation of one source; lesions of which the same is said share it."""
    why = (Section("Why", tuple(map(Node, why_lines(k, a)))) for _, a in pairs)
    return _grouped(k, [(e, (first, *narrate(e, a))) for first, (e, a) in zip(why, pairs, strict=True)])


def _told_by_title(k: Knowledge, explained: Sequence[Explained]) -> list[tuple[str, list[Told]]]:
    """What concerns all sources, heading by heading in the order of the narrative."""
    titles: list[str] = []
    by_title: dict[str, list[tuple[Explained, tuple[Section, ...]]]] = {}
    for e in explained:
        at = 0
        for section in narrate_case(e):
            if section.title not in titles:
                titles.insert(at, section.title)
            at = titles.index(section.title) + 1
            by_title.setdefault(section.title, []).append((e, (section,)))
    return [(t, _grouped(k, by_title[t], len(explained))) for t in titles]


def _grouped(k: Knowledge, rows: Sequence[tuple[Explained, tuple[Section, ...]]], of: int = 0) -> list[Told]:
    groups: dict[tuple[Section, ...], list[str]] = {}
    for e, sections in rows:
        groups.setdefault(sections, []).append(lesion_words(k, e.case))
    whole = len(groups) == 1 and len(rows) == (of or len(rows))
    return [Told("" if whole else ", ".join(names), sections) for sections, names in groups.items()]


# -- evidence


def _evidence(k: Knowledge, techniques: Sequence[str]) -> tuple[list[tuple[str, list[Evidence]]], int]:
    """What studies say for and against what is proposed, comparisons first, and how many statements there are."""
    t = k.triples
    found: dict[str, list[str]] = {side: [] for side in (_FOR, _AGAINST, _NEITHER)}
    for s in sorted(t.subjects(TYPE, KYPHO + "EvidenceStatement")):
        side = _SIDES.get(t.resource(s, KYPHO + "direction") or "")
        of, with_ = (any(x in techniques for x in t.resources(s, KYPHO + p)) for p in ("arm", "comparator"))
        if side and of is not with_:
            found[side if of else _OTHER_SIDE[side]].append(s)
    each = MOST_EVIDENCE // len(found)
    shown = [(side, [_statement(k, s) for s in _ranked(k, some)[:each]]) for side, some in found.items()]
    return [(side, lines) for side, lines in shown if lines], sum(map(len, found.values()))


def _ranked(k: Knowledge, statements: Iterable[str]) -> list[str]:
    """One statement of each study before a second of any; then read ones, comparisons and large groups first."""
    t = k.triples

    def rank(s: str) -> tuple[bool, bool, int, str]:
        unread = t.resource(s, KYPHO + "mark") == KYPHO + UNVERIFIED
        size = t.whole_number(s, KYPHO + "participants") or 0
        return unread, not t.resources(s, KYPHO + "comparator"), -size, s

    told: Counter[str] = Counter()
    turns: dict[int, list[str]] = defaultdict(list)
    for s in sorted(statements, key=rank):
        study = t.resource(s, KYPHO + "fromStudy") or s
        turns[told[study]].append(s)
        told[study] += 1
    return [s for turn in sorted(turns) for s in turns[turn]]


def _statement(k: Knowledge, s: str) -> Evidence:
    t = k.triples
    mark = t.resource(s, KYPHO + "mark") or ""
    notes = [k.plain(mark)] if mark == KYPHO + UNVERIFIED else []
    if against := sorted({*t.resources(s, KYPHO + "contradicts"), *t.subjects(KYPHO + "contradicts", s)}):
        notes.append(f"contradicted by {_few(t.text(o, LABEL) for o in against)}")
    design, citation = k.plain(t.resource(s, KYPHO + "studyDesign") or ""), t.text(s, DCTERMS + "bibliographicCitation")
    return Evidence(k.plain(s), design, citation, t.text(s, DCTERMS + "source"), "; ".join(notes))
