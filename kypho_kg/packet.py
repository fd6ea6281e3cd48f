"""The packet for a request for prior authorization: each policy in force as a checklist with the evidence for it.

It says which criteria the record meets, does not meet or does not address, and what is still to be documented. It
states no coverage decision, assumes nothing, and leaves blank what the record does not say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum

from kypho_kg.applicability import Place, choice_of_procedure, payers_of
from kypho_kg.candidacy import Assessment, CaseAnswer, ClauseResult, assess
from kypho_kg.errors import UsageError
from kypho_kg.evaluation import Proof, Truth
from kypho_kg.explanation import Explained, Need, explain
from kypho_kg.guidelines import (
    ABSOLUTE,
    DECIDING,
    DOCUMENTATION,
    EXCLUDES,
    INDICATES,
    RELATIVE,
    REQUIRES,
    SCOPE,
    UNVERIFIED,
    WITHIN,
    Guideline,
)
from kypho_kg.inference import infer
from kypho_kg.intake import mark_invalid
from kypho_kg.knowledge import Knowledge
from kypho_kg.missing import OPEN_VERDICTS
from kypho_kg.packet_header import Filled, Given, Header, asked_fields, fill
from kypho_kg.reasons import deciding
from kypho_kg.record import LESION, PATIENT, PROCEDURE, Cause, Fact, Record
from kypho_kg.snapshot import Snapshot
from kypho_kg.terminal import unused_lines
from kypho_kg.words import asked_words, cause_words, leaf_words

STATEMENT = (
    "This packet says which criteria of a policy the record meets, does not meet or does not address. It is no "
    "coverage decision: whether the service is covered is decided by the payer."
)
_WORDS = {Truth.MET: "met", Truth.NOT_MET: "not met", Truth.UNKNOWN: "not addressed"}


class Stance(StrEnum):
    """What the truth of a clause means for the request."""

    SATISFIED = "satisfied"
    AGAINST = "against"
    CAUTION = "caution"
    OPEN = "open"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Point:
    """One thing that a clause asks, with what the record says of it."""

    proof: Proof
    decides: bool
    """Whether it is one of those by which the clause has its truth, or is still open."""
    words: str
    asked: str
    cause: str
    """Why it is unknown, in words; empty where it is known."""


@dataclass(frozen=True, slots=True)
class Check:
    """A clause of a policy as a line of the checklist."""

    clause: ClauseResult
    stance: Stance
    words: str
    """``met``, ``not met`` or ``not addressed``."""
    causes: tuple[str, ...]
    """Why it is not addressed, where that is more than silence."""
    points: tuple[Point, ...]

    @property
    def unverified(self) -> bool:
        """Whether its text was never read at any source."""
        return self.clause.recommendation.mark == UNVERIFIED


@dataclass(frozen=True, slots=True)
class Wanting:
    """A feature that would settle an undecided clause."""

    need: Need
    settles: bool
    """Whether it belongs to the least burdensome set that settles what the policy says."""


@dataclass(frozen=True, slots=True)
class Section:
    """What one policy says of one lesion."""

    explained: Explained
    assessment: Assessment
    checks: tuple[Check, ...]
    wanting: tuple[Wanting, ...]

    @property
    def case(self) -> CaseAnswer:
        """The case that is judged."""
        return self.explained.case

    def documents(self, due: str, *, shown: bool = False) -> tuple[Check, ...]:
        """Documentation that is due at a time, and is not shown, or is.

        :param due: local name of the time; a duty without one is due before the request.
        """
        return tuple(
            c
            for c in self.checks
            if c.clause.recommendation.effect == DOCUMENTATION
            and (c.clause.recommendation.due or BEFORE) == due
            and (c.clause.truth is Truth.MET) is shown
        )

    @property
    def cautions(self) -> tuple[Check, ...]:
        """Relative contraindications that are met, and those still to be screened."""
        ours = [c for c in self.checks if c.clause.recommendation.effect == RELATIVE]
        return tuple(c for c in ours if c.clause.truth is not Truth.NOT_MET)

    @property
    def open(self) -> bool:
        """Whether a criterion is undecided, or a document that is due before the request is not shown."""
        if self.assessment.verdict == "NotApplicable":
            return False
        return self.assessment.verdict in OPEN_VERDICTS or bool(self.documents(BEFORE))


BEFORE, AFTER = "BeforeRequest", "AfterProcedure"


@dataclass(frozen=True, slots=True)
class PolicyPart:
    """One policy with a section for each lesion of the request."""

    guideline: Guideline
    in_force: bool | None
    named: bool
    """Whether it was named, and not picked by state, payer and date of service."""
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Maybe:
    """A policy of which it is not known whether it applies."""

    guideline: Guideline
    missing: tuple[str, ...]
    """What would have to be known."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Statements that contradict each other; neither counts."""

    subject: str
    feature: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Packet:
    """All that a request for one patient needs, and what it still lacks."""

    record: Record
    knowledge: Knowledge
    as_of: date
    header: tuple[Filled, ...]
    author: str
    """Who filled in the header file."""
    lesions: tuple[str, ...]
    parts: tuple[PolicyPart, ...]
    maybe: tuple[Maybe, ...]
    contradictions: tuple[Contradiction, ...]
    unused: tuple[str, ...]
    """Recorded facts that did not count, with the reason."""
    undated: bool
    """Whether no date of service is recorded, so that policies were picked by the as-of date."""

    @property
    def blanks(self) -> tuple[Filled, ...]:
        """Fields that a policy asks for and nothing fills."""
        return tuple(f for f in self.header if f.asked_by and not f.values)

    @property
    def lacking(self) -> tuple[str, ...]:
        """What must be known before it is known which policies apply."""
        return tuple(dict.fromkeys(piece for m in self.maybe for piece in m.missing))


def build_packet(
    record: Record,
    knowledge: Knowledge,
    *,
    as_of: date | None = None,
    guidelines: Sequence[str] = (),
    lesion: str | None = None,
    state: str | None = None,
    payer: str | None = None,
    header: Header | None = None,
) -> Packet:
    """The packet for the lesions of the proposed session.

    :param as_of: the date on which the record is read; overrides that of the record.
    :param guidelines: ids of policies; by default those in force by state, payer, place and date of service.
    :param lesion: the one lesion that it is about; by default those of the proposed session, or all.
    :param state: postal code of the state of service; overrides that of the record.
    :param payer: local name of a payer; overrides that of the record.
    :raises UsageError: without a date, for an unknown guideline, payer or lesion.
    """
    k, day = knowledge, as_of or record.as_of
    if day is None:
        raise UsageError(f"{record.place}: no as-of date; give one in the file (as_of) or with --as-of")
    record = mark_invalid(record)
    snapshot = infer(record, k, day, bridges=tuple(k.bridges.values()))
    place = Place(snapshot, state, payers_of(snapshot, payer))
    chosen = list(dict.fromkeys(k.guideline(g).id for g in guidelines)) or [g.id for g in _in_force(place)]
    maybe = () if guidelines else tuple(Maybe(g, tuple(_unknown_of(place, g))) for g in _possible(place))
    lesions = _lesions(record, lesion)
    explained: tuple[Explained, ...] = ()
    if chosen:
        answer = assess(record, as_of=day, knowledge=k, guidelines=chosen, state=state, payer=payer, validate=False)
        explained = tuple(e for e in explain(answer) if e.case.lesion.id in lesions)
    parts = []
    for id_ in chosen:
        pairs = [(e, a) for e in explained for a in e.case.assessments if a.guideline.id == id_]
        sections = tuple(_section(e, a) for e, a in pairs)
        g = k.guidelines[id_]
        parts.append(PolicyPart(g, place.in_force(g), bool(guidelines), sections))
    asked = asked_fields(k, ((p.guideline.id, p.guideline.iri) for p in parts))
    filled = fill(snapshot, header or Header(), Given(state, payer), lesions, asked)
    unused = dict.fromkeys(line for e in explained for line in unused_lines(k, e.case))
    procedure = record.procedure
    return Packet(
        record=record,
        knowledge=k,
        as_of=day,
        header=filled,
        author=header.author if header else "",
        lesions=lesions,
        parts=tuple(parts),
        maybe=maybe,
        contradictions=tuple(_contradictions(snapshot, lesions)),
        unused=tuple(unused),
        undated=not (procedure and procedure.service_date),
    )


# -- which policies


def _policies(place: Place) -> Iterator[Guideline]:
    """The coverage policies that bind somebody, and that no newer version has replaced."""
    guidelines = place.snapshot.knowledge.guidelines.values()
    replaced = {old for g in guidelines if place.in_force(g) is not False for old in g.replaces}
    yield from (g for g in guidelines if g.layer == "CoveragePolicy" and g.is_policy and g.id not in replaced)


def _in_force(place: Place) -> Iterator[Guideline]:
    return (g for g in _policies(place) if place.in_force(g) is True)


def _possible(place: Place) -> Iterator[Guideline]:
    return (g for g in _policies(place) if place.in_force(g) is None)


def _unknown_of(place: Place, g: Guideline) -> Iterator[str]:
    """What is not known of the service, of all that decides whether a policy applies; in words."""
    k, procedure = place.snapshot.knowledge, place.snapshot.record.procedure
    anywhere = replace(g, states=(), payers=(), settings=(), effective_from=None, effective_until=None)
    dates = replace(anywhere, effective_from=g.effective_from, effective_until=g.effective_until)
    settings = choice_of_procedure(place.snapshot, "placeOfService")
    payer, setting = (k.label(k.by_name[name].iri) for name in ("payer", "placeOfService"))
    for alone, words, known in (
        (replace(anywhere, states=g.states), "state", False),
        (replace(anywhere, payers=g.payers), payer, bool(place.payers)),
        (replace(anywhere, settings=g.settings), setting, bool(settings)),
        (dates, "date of service", bool(procedure and procedure.service_date)),
    ):
        if place.in_force(alone) is None:
            yield f"{words} (more exactly)" if known else words


def _lesions(record: Record, named: str | None) -> tuple[str, ...]:
    known = tuple(x.id for x in record.lesions)
    if named is not None:
        if named not in known:
            raise UsageError(f"no lesion {named!r}; known: {', '.join(known) or 'none'}")
        return (named,)
    session = record.procedure.lesions if record.procedure else None
    return known if session is None else tuple(x for x in known if x in session)


# -- one policy on one lesion


def _section(explained: Explained, a: Assessment) -> Section:
    k = explained.knowledge
    indicated = bool(a.having(INDICATES, Truth.MET))
    checks = tuple(_check(k, c, indicated=indicated) for c in a.counted)
    return Section(explained, a, checks, tuple(_wanting(explained, a)))


def _check(k: Knowledge, clause: ClauseResult, *, indicated: bool) -> Check:
    points = tuple(_points(k, clause.proof))
    causes = dict.fromkeys(
        cause_words(k, leaf)
        for leaf in clause.proof.unknown_leaves()
        if leaf.gap and leaf.gap.cause is not Cause.NOT_RECORDED
    )
    return Check(clause, _stance(clause, indicated=indicated), _WORDS[clause.truth], tuple(causes), points)


def _stance(clause: ClauseResult, *, indicated: bool) -> Stance:
    effect, truth = clause.recommendation.effect, clause.truth
    if effect in {EXCLUDES, ABSOLUTE, RELATIVE}:
        met = Stance.CAUTION if effect == RELATIVE else Stance.AGAINST
        return {Truth.MET: met, Truth.NOT_MET: Stance.SATISFIED, Truth.UNKNOWN: Stance.OPEN}[truth]
    if effect == DOCUMENTATION:
        return Stance.SATISFIED if truth is Truth.MET else Stance.OPEN
    if effect in {SCOPE, REQUIRES, INDICATES, WITHIN}:
        if truth is not Truth.MET and indicated and effect in {INDICATES, WITHIN}:
            return Stance.NOTE  # another pathway holds, so that this one is not needed
        return {Truth.MET: Stance.SATISFIED, Truth.NOT_MET: Stance.AGAINST, Truth.UNKNOWN: Stance.OPEN}[truth]
    return Stance.NOTE


def _points(k: Knowledge, proof: Proof) -> Iterator[Point]:
    """The atoms of a clause, each once; a band that the source leaves open names its atoms twice."""
    decisive = {(leaf.subject, leaf.criterion) for leaf in deciding(proof)}
    seen = set()
    for leaf in proof.leaves():
        key = (leaf.subject, leaf.criterion)
        if leaf.criterion.term not in k.features or key in seen:
            continue
        seen.add(key)
        asks = leaf.criterion.range is not None or bool(leaf.criterion.values)
        asked = asked_words(k, leaf.criterion) if asks else ""
        cause = cause_words(k, leaf) if leaf.gap else ""
        yield Point(leaf, key in decisive, leaf_words(k, leaf), asked, cause)


def _wanting(explained: Explained, a: Assessment) -> Iterator[Wanting]:
    """The features on which undecided clauses wait: those that settle the matter first, then the easiest."""
    settling = {(n.subject, n.feature) for n in explained.needs(a)}
    wanted: dict[tuple[str, str], None] = {}
    for clause in a.counted:
        if clause.truth is Truth.UNKNOWN and clause.recommendation.effect in {*DECIDING, WITHIN, DOCUMENTATION}:
            for leaf in clause.proof.unknown_leaves():
                if leaf.criterion.term in explained.knowledge.features:
                    wanted[leaf.subject, leaf.criterion.term] = None
    needs = [explained.need(a, *key) for key in wanted]
    rows = [Wanting(n, (n.subject, n.feature) in settling) for n in needs]
    yield from sorted(rows, key=lambda w: (not w.settles, not w.need.obtainable, w.need.burden, w.need.feature))


def _contradictions(snapshot: Snapshot, lesions: Iterable[str]) -> Iterator[Contradiction]:
    """Facts of the patient, the procedure and these lesions that were withheld because they contradict each other."""
    subjects = (PATIENT, PROCEDURE, *(LESION + id_ for id_ in lesions))
    seen = set()
    gaps = [(s, f, r.gap) for (s, f), r in snapshot.values.items()]
    gaps += [(s, f, g) for s, rows in snapshot.gaps.items() for f, g in rows]
    for subject, feature, gap in sorted(gaps, key=lambda row: (row[0], row[1])):
        key = frozenset(gap.facts)
        if subject in subjects and gap.cause is Cause.CONFLICTING and key not in seen:
            seen.add(key)
            yield Contradiction(subject, feature, gap.facts)
