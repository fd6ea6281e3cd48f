"""The explanation of a case as sections of nested sentences: one text for the terminal, Markdown and the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kypho_kg.candidacy import Assessment, ClauseResult
from kypho_kg.conflicts import conflicts_of
from kypho_kg.criteria import Op
from kypho_kg.disagreement import Member
from kypho_kg.evaluation import Proof, Truth
from kypho_kg.explanation import Explained
from kypho_kg.flips import MOST_CHANGES, Flip, nearest
from kypho_kg.guidelines import ABSOLUTE, ADVISES, EXCLUDES, RELATIVE, SCOPE, UNVERIFIED
from kypho_kg.knowledge import Knowledge
from kypho_kg.missing import Missing, Wanted, Way
from kypho_kg.reasons import Standing, deciding, near_misses, reasons_of, standing, untouched_clauses
from kypho_kg.record import PATIENT, PROCEDURE, Cause, Fact, Mood, Status
from kypho_kg.values import Variable
from kypho_kg.verdicts import UNDETERMINED
from kypho_kg.vocabulary import KYPHO
from kypho_kg.words import (
    cause_words,
    cells_words,
    conflict_lines,
    fact_in_short,
    fact_words,
    leaf_words,
    said,
    unit_words,
)

MOST_SETS_TOLD = 4
_SAYS_SO = ("derived:", "bridge ", "closure:", "assumed ")
"""How the source of a fact that a rule yielded begins."""
_BEST_FIRST = (
    "Candidate", "CandidateWithCaution", "CandidateScreeningOpen", "Rated", "NoVerdict", "Undetermined",
    "NotApplicable", "NotIndicated", "Contraindicated",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """A sentence, with the truth it tells, what is noted beside it, and the sentences under it."""

    text: str
    truth: Truth | None = None
    notes: tuple[str, ...] = ()
    children: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """Sentences under a heading."""

    title: str
    nodes: tuple[Node, ...]
    lead: str = ""
    """What the section says, in a sentence."""


def narrate(explained: Explained, a: Assessment) -> tuple[Section, ...]:
    """Why one guideline says what it says of a case, what is missing, and what would change it."""
    counted = {c.recommendation.id for c in a.counted}
    clauses = tuple(clause_node(explained, c, counts=c.recommendation.id in counted) for c in a.clauses)
    sections = [Section("Clauses", clauses, "Every clause of the source, with the whole proof.")]
    found = explained.missing(a)
    if found is not None:
        sections += _missing(explained, a, found)
    sections.append(_flips(explained, a))
    silent = untouched_clauses(a)
    if silent:
        names = tuple(Node(f"{c.recommendation.id} {c.recommendation.label}") for c in silent)
        sections.append(Section("Clauses that matched nothing", names, "Nothing is recorded of what they ask."))
    unread = [c for c in a.clauses if c.recommendation.mark == UNVERIFIED]
    if unread:
        lead = f"{len(unread)} of {len(a.clauses)} clauses were never read at any source; what rests on them is unsure."
        sections.append(Section("Not verified", tuple(Node(c.recommendation.id) for c in unread), lead))
    return tuple(s for s in sections if s.nodes or s.lead)


def narrate_case(explained: Explained) -> tuple[Section, ...]:
    """What concerns all guidelines: what to get next, where they disagree, and what nobody read."""
    sections = [
        *_deciding(explained), _steps(explained), _unobtainable(explained),
        *_disagreement(explained), _unread(explained),
    ]  # fmt: skip
    return tuple(s for s in sections if s.nodes)


# -- clauses


def clause_node(explained: Explained, clause: ClauseResult, *, counts: bool = True) -> Node:
    """A clause with its text and citation, its independent reasons, near misses, and its proof.

    :param counts: whether it enters the verdict, and is not of another reading.
    """
    k, r = explained.knowledge, clause.recommendation
    found = reasons_of(explained.case.snapshot, clause)
    graded = ", ".join(
        filter(None, (r.strength and f"strength {r.strength}", r.grade and f"grade {r.grade}"))
    )  # fmt: skip
    notes = [" · ".join(filter(None, (r.citation, r.url, k.plain(KYPHO + r.mark), graded)))]
    if len(found.sets) > 1:
        count = f"{len(found.sets)}" if found.complete else f"more than {len(found.sets)}"
        told = "; ".join(_reason_words(k, reason) for reason in found.sets[:3])
        more = "" if len(found.sets) <= 3 else "; ..."
        notes.append(f"{count} independent reasons, each enough alone: {told}{more}")
    notes += dict.fromkeys(f"close to the limit: {_near(k, leaf)}" for leaf in near_misses(clause.proof))
    head = f"{r.id} {k.plain(KYPHO + r.effect)}: {r.label}"
    if not counts:
        name = r.reading or "the main one"
        head += f" (not counted: only in the reading {name}, chosen by --reading)"
    notes.insert(0, r.text)
    return Node(head, clause.truth, tuple(notes), tuple(proof_nodes(k, clause.proof)))


def _reason_words(k: Knowledge, reason: Iterable[Fact]) -> str:
    return " and ".join(sorted(fact_in_short(k, f) for f in reason))


def _near(k: Knowledge, leaf: Proof) -> str:
    shown = unit_words(k.features[leaf.criterion.term])
    distance = abs(leaf.distance) if leaf.distance is not None else 0
    off = f"off by {distance}{shown}" if distance else "just at the limit, which does not count"
    return f"{leaf_words(k, leaf)}, {off}"


def proof_nodes(k: Knowledge, proof: Proof) -> Iterator[Node]:
    """The tree of a proof; a link is passed through, and of an open band the reading is shown that decides."""
    c = proof.criterion
    if c.op is Op.LINK and proof.children:
        yield from proof_nodes(k, proof.children[0])
        return
    if not proof.children:
        facts = tuple(fact_line(k, f) for f in proof.facts)
        yield Node(leaf_words(k, proof), proof.truth, facts)
        return
    named = f" — {k.plain(c.name)}" if c.name else ""
    if c.op is Op.OPEN:
        strict, lenient = proof.children
        shown, other = (strict, lenient) if proof.truth is Truth.MET else (lenient, strict)
        cause = f": {cause_words(k, proof)}" if proof.gap else ""
        beside = Node(k.plain(other.criterion.name), other.truth)
        inner = (beside, *proof_nodes(k, shown))
        yield Node(f"a band that the source leaves open{cause}{named}", proof.truth, (), inner)
        return
    words = {Op.AND: "all of", Op.OR: "any of", Op.NOT: "not", Op.AT_LEAST: f"at least {c.n} of"}[c.op]
    yield Node(words + named, proof.truth, (), tuple(n for child in proof.children for n in proof_nodes(k, child)))


def fact_line(k: Knowledge, fact: Fact) -> str:
    """A fact with its date and source, and how it came about; of a derived one also what it rests on."""
    when = str(fact.time) if fact.time else "stated as current"
    mood = "" if fact.mood is Mood.OBSERVED else f", {fact.mood}"
    how = standing(k, fact)
    unsure = "" if fact.status is Status.CONFIRMED else f", {fact.status}"
    line = f"{fact_words(k, fact)} · {when}{mood}{unsure} · {fact.source}"
    if how is not Standing.ASSERTED and not str(fact.source).startswith(_SAYS_SO):
        line += f" · {how}"
    if fact.premises:
        line += " · from " + "; ".join(fact_line(k, p) for p in fact.premises)
    return line


# -- what is missing


def subject_words(explained: Explained, subject: str) -> str:
    """Of whom a feature is recorded, where it is not the index lesion."""
    if subject in {PATIENT, PROCEDURE}:
        return subject
    id_ = subject.partition(":")[2]
    return "" if id_ == explained.case.lesion.id else f"lesion {id_}"


def _missing(explained: Explained, a: Assessment, found: Missing) -> Iterator[Section]:
    k = explained.knowledge
    ends = sorted(found.reachable, key=_BEST_FIRST.index)
    if ends:
        best, worst = a.guideline.words(ends[0]), a.guideline.words(ends[-1])
        lead = f"In the best case: {best}. In the worst case: {worst}."
        yield Section("How it can end", tuple(Node(a.guideline.words(v)) for v in ends), lead)
    limits = "" if found.exact else " Too many combinations: some sets were left out."
    if found.decisive:
        save = ""
        if found.bands:
            names = ", ".join(k.plain(b) for b in found.bands)
            save = f" Save where a value lies in a band that the source leaves open: {names}."
        several = len(found.decisive) > 1
        lead = (
            "Each of these sets settles" if several else "Together these settle"
        ) + " it, whatever they turn out to be."
        sets = tuple(
            Node(f"set {i}", children=tuple(_need_nodes(explained, a, s)))
            for i, s in enumerate(found.decisive[:MOST_SETS_TOLD], 1)
        )
        more = (
            (Node(f"and {len(found.decisive) - MOST_SETS_TOLD} more sets"),)
            if len(found.decisive) > MOST_SETS_TOLD
            else ()
        )
        yield Section("What is missing", sets[0].children if not several else (*sets, *more), lead + save + limits)
    elif a.verdict == UNDETERMINED:
        needs = tuple(_need_node(k, explained, n.subject, n.feature, a) for n in explained.needs(a))
        lead = "No facts settle it for sure: something cannot be assessed, or the source leaves it open." + limits
        yield Section("What is missing", needs, lead)
    ways = [Node(a.guideline.words(v), children=tuple(_possible(explained, found, v))) for v in _BEST_FIRST]
    ways = [n for n in ways if n.children]
    if ways:
        yield Section("What some values would make of it", tuple(ways), "Each line alone is enough." + limits)


def _need_nodes(explained: Explained, a: Assessment, variables: Sequence[Variable]) -> Iterator[Node]:
    rows = [(v.subject, v.feature) for v in variables]
    needs = sorted((explained.need(a, *row) for row in rows), key=lambda n: (n.burden, n.feature))
    for need in needs:
        yield _need_node(explained.knowledge, explained, need.subject, need.feature, a)


def _need_node(k: Knowledge, explained: Explained, subject: str, feature: str, a: Assessment) -> Node:
    need = explained.need(a, subject, feature)
    causes = ", ".join(k.plain(KYPHO + c) for c in need.causes)
    way = f"by {need.acquisition}" if need.obtainable and need.acquisition else "cannot be obtained"
    whose = subject_words(explained, subject)
    where = f" ({whose})" if whose and whose != PATIENT else ""
    clauses = ", ".join(c.partition("/")[2] for c in need.clauses)
    told = (c for c in need.causes if c is not Cause.NOT_RECORDED)  # that speaks for itself
    advice = tuple(dict.fromkeys(filter(None, (k.triples.text(KYPHO + c, KYPHO + "advice") for c in told))))
    return Node(f"{k.plain(feature)}{where}: {causes}; {way}" + (f"; for {clauses}" if clauses else ""), None, advice)


def _possible(explained: Explained, found: Missing, verdict: str) -> Iterator[Node]:
    sets = [p for p in found.possible if p.verdict == verdict]
    for possible in sets[:MOST_SETS_TOLD]:
        told = [_way_words(explained, way) for way in possible.ways[:2]]
        more = f" (or {len(possible.ways) - 2} other combinations)" if len(possible.ways) > 2 else ""
        yield Node(" — or ".join(told) + more)
    if len(sets) > MOST_SETS_TOLD:
        yield Node(f"and {len(sets) - MOST_SETS_TOLD} more sets")


def _way_words(explained: Explained, way: Way) -> str:
    return "; ".join(_wanted_words(explained, w) for w in way)


def _wanted_words(explained: Explained, wanted: Wanted) -> str:
    k = explained.knowledge
    return f"{k.plain(wanted.variable.feature)}: {cells_words(k, wanted)}"


# -- what would flip it


def _flips(explained: Explained, a: Assessment) -> Section:
    nodes = tuple(_flip_node(explained, a, flip) for flip in explained.flips(a))
    lead = f"The fewest changes; of what is recorded, up to {MOST_CHANGES} changes are looked for."
    if not nodes:
        lead = (
            f"No change of up to {MOST_CHANGES} features alters it. What cannot change, and what is not undone once it "
            "has come about, is left as it is; only a corrected record would."
        )
    judges = a.verdict not in {"Rated", "NoVerdict"}
    return Section("What would change the verdict", nodes, lead if judges else "")


def _flip_node(explained: Explained, a: Assessment, flip: Flip) -> Node:
    sure = "" if flip.exact else " (there may be a smaller one)"
    ways = tuple(Node("; ".join(_change_words(explained, w) for w in way)) for way in flip.ways[:MOST_SETS_TOLD])
    more = (Node(f"and {len(flip.ways) - len(ways)} more ways"),) if len(flip.ways) > len(ways) else ()
    count = "1 change" if flip.changes == 1 else f"{flip.changes} changes"
    return Node(f"{a.guideline.words(flip.verdict)}: {count}{sure}", None, (), (*ways, *more))


def _change_words(explained: Explained, wanted: Wanted) -> str:
    step = nearest(wanted)
    if step is None:
        v, snapshot = wanted.variable, explained.case.snapshot
        recorded = (*snapshot.supports(v.subject, v.feature), *snapshot.refutations(v.subject, v.feature))
        now = sorted({fact_in_short(explained.knowledge, f) for f in recorded})
        return _wanted_words(explained, wanted) + (f" (now {'; '.join(now)})" if now else "")
    value, limit = step
    by = f", by {abs(limit - value)}" if limit != value else ""
    return f"{_wanted_words(explained, wanted)} (now {value}{by})"


# -- the whole case


def _deciding(explained: Explained) -> Iterator[Section]:
    """The recorded facts by which sources object, and the advice that applies, over all sources asked."""
    k = explained.knowledge
    against: dict[str, dict[str, None]] = {}
    advised: dict[str, None] = {}
    for a in explained.case.assessments:
        if a.having(SCOPE, Truth.NOT_MET):
            continue
        objecting = (c for effect in (ABSOLUTE, EXCLUDES, RELATIVE) for c in a.having(effect, Truth.MET))
        for clause in objecting:
            for leaf in deciding(clause.proof):
                for fact in leaf.facts:
                    against.setdefault(fact_in_short(k, fact), {})[clause.recommendation.id] = None
        for clause in a.having(ADVISES, Truth.MET):
            advised[f"{clause.recommendation.id}: {clause.recommendation.text}"] = None
    rows = sorted(against.items(), key=lambda row: -len(row[1]))
    nodes = tuple(Node(f"{fact}: {_some(tuple(ids))}") for fact, ids in rows)
    if nodes:
        yield Section("What is recorded and weighs against it", nodes, "With the clauses that it meets.")
    if advised:
        yield Section("Advice that applies", tuple(Node(text) for text in advised))


def _some(ids: Sequence[str], most: int = 5) -> str:
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")


def _steps(explained: Explained, most: int = 12) -> Section:
    k = explained.knowledge
    nodes = []
    for step in explained.steps[:most]:
        parts = [
            f"{word} {len(some)}" for word, some in
            (("settles", step.settles), ("may settle", step.may_settle), ("needed by", step.needed)) if some
        ]  # fmt: skip
        causes = ", ".join(k.plain(KYPHO + c) for c in step.causes)
        whose = subject_words(explained, step.subject)
        of = f" ({whose})" if whose == PROCEDURE else ""
        way = k.label(step.feature.acquisition)
        nodes.append(Node(f"{step.feature.plain}{of}: {', '.join(parts)}", None, (f"{causes}; by {way}",)))
    more = len(explained.steps) - most
    if more > 0:
        nodes.append(Node(f"and {more} more"))
    lead = (
        "By how many sources each settles whatever it turns out to be, may settle by some values, or is needed by "
        "beside others, for the burden of finding it out. These are options, not orders."
    )
    return Section("What to find out next", tuple(nodes), lead)


def _unobtainable(explained: Explained) -> Section:
    k = explained.knowledge
    nodes = []
    for u in explained.unobtainable:
        instead = ", ".join(dict.fromkeys(k.plain(f) for _, f in u.instead))
        why = f" ({u.reason})" if u.reason else ""
        nodes.append(Node(f"{u.feature.plain}{why}" + (f"; in its place: {instead}" if instead else "")))
    return Section("What cannot be assessed", tuple(nodes))


def _disagreement(explained: Explained) -> Iterator[Section]:
    k, found = explained.knowledge, explained.disagreement
    nodes = []
    for cluster in found.clusters:
        members = tuple(
            Node(f"{m.assessment.guideline.id}: {said(m.assessment)}{_kept_by(m)}") for m in cluster.members
        )
        nodes.append(Node(f"{cluster.side}: {len(members)}", None, (), members))
    lead = ""
    if found.separating:
        names = ", ".join(k.plain(f) for f in found.separating)
        lead = f"Every source that says no turns on one of: {names}."
    if nodes:
        yield Section("Where the sources stand", tuple(nodes), lead)
    fired = conflicts_of(k, explained.case)
    topics = tuple(
        Node(
            f"{f.conflict.id} {f.conflict.plain}" + ("" if f.opposed else " (in degree)"),
            None, (), tuple(Node(f"{stance}: {'; '.join(lines)}") for stance, lines in conflict_lines(k, f)),
        )
        for f in fired
    )  # fmt: skip
    if topics:
        yield Section("On what they disagree", topics)


def _kept_by(member: Member) -> str:
    """The clauses that keep a guideline from saying yes."""
    names = [c.recommendation.clause for c in member.clauses[:6]]
    if member.any_of:
        names.append("one of " + " / ".join(c.recommendation.clause for c in member.any_of[:4]))
    return f" [{', '.join(names)}]" if names else ""


def _where_said(fact: Fact) -> str:
    return f"{fact.time or 'stated as current'} · {fact.source}"


def _unread(explained: Explained) -> Section:
    k = explained.knowledge
    rows = tuple(Node(f"{fact_in_short(k, f)} · {_where_said(f)}") for f in explained.unread)
    return Section("Recorded, and read by no clause", rows, "It counts for none of the sources that were asked.")
