"""The front door: from a record to the verdict of every guideline on every lesion.

>>> from kypho_kg import assess, load_knowledge, read_records                           # doctest: +SKIP
>>> records, problems = read_records([Path("patient.yaml")], load_knowledge())          # doctest: +SKIP
>>> answer = assess(records[0])                                                         # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from kypho_kg.applicability import Place, choice_of_procedure, payers_of
from kypho_kg.errors import UsageError
from kypho_kg.evaluation import Evaluator, Proof, Truth, lesion_subject
from kypho_kg.guidelines import DOCUMENTATION, RATES, RELATIVE, Guideline, OptionRating, Recommendation
from kypho_kg.inference import assumptions_of, infer
from kypho_kg.intake import mark_invalid
from kypho_kg.knowledge import Bridge, Knowledge, Policy
from kypho_kg.loading import load_knowledge
from kypho_kg.record import Fact, Lesion, Record
from kypho_kg.snapshot import Snapshot
from kypho_kg.verdicts import Conclusion, Variant, conclude

ALL = "all"
"""In place of ids: every guideline, also superseded versions and policies that are not in force."""
ASSUMED, UNBRIDGED = "assumed", "unbridged"


@dataclass(frozen=True, slots=True)
class ClauseResult:
    """One recommendation with its truth and proof for a case."""

    recommendation: Recommendation
    proof: Proof

    @property
    def truth(self) -> Truth:
        """The truth of the clause."""
        return self.proof.truth


@dataclass(frozen=True, slots=True)
class Assumed:
    """What a guideline says under assumption policies, beside the strict verdict."""

    policies: tuple[str, ...]
    conclusion: Conclusion
    assumptions: tuple[Fact, ...]
    """The assumed absences that the clauses of this guideline used."""
    clauses: tuple[ClauseResult, ...]


@dataclass(frozen=True, slots=True)
class Assessment:
    """The judgement of one case by one guideline."""

    guideline: Guideline
    conclusion: Conclusion
    clauses: tuple[ClauseResult, ...]
    readings: dict[str, Conclusion]
    """Verdicts by the other readings of the guideline; ``""`` is the reading without any alternative clause."""
    in_force: bool | None
    """Whether the policy applies by service date, state and payer; ``None`` where one of them is not known."""
    bridges: tuple[str, ...]
    unbridged: Conclusion | None = None
    """The verdict without the bridges, where the clauses used one."""
    assumed: Assumed | None = None
    reading: str = ""
    """The alternative reading that was chosen for the verdict, empty for none."""
    techniques: frozenset[str] = frozenset()
    """The techniques of which one is proposed."""

    @property
    def verdict(self) -> str:
        """The verdict with nothing assumed."""
        return self.conclusion.verdict

    @property
    def counted(self) -> tuple[ClauseResult, ...]:
        """The clauses that enter the verdict: those of no reading and those of the chosen one."""
        return tuple(c for c in self.clauses if c.recommendation.reading in {"", self.reading})

    def having(self, effect: str, *truths: Truth) -> tuple[ClauseResult, ...]:
        """Clauses of an effect that enter the verdict, of the given truths or of all."""
        return tuple(c for c in self.counted if c.recommendation.effect == effect and (not truths or c.truth in truths))

    @property
    def ratings(self) -> tuple[tuple[ClauseResult, OptionRating], ...]:
        """What a panel says of each option in the scenarios that fit the case."""
        return tuple((c, r) for c in self.having(RATES, Truth.MET) for r in c.recommendation.ratings)

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories in which a panel puts what is proposed: of the proposed technique, where that was rated."""
        mine = [(c, r) for c, r in self.ratings if r.is_proposed]
        named = {c.recommendation.id for c, r in mine if r.option in self.techniques}
        kept = (r for c, r in mine if r.option in self.techniques or c.recommendation.id not in named)
        return tuple(dict.fromkeys(r.category for r in kept))


@dataclass(frozen=True, slots=True)
class CaseAnswer:
    """All judgements on one lesion of a patient."""

    record: Record
    lesion: Lesion
    in_session: bool
    snapshot: Snapshot
    assessments: tuple[Assessment, ...]
    bridged: bool = True
    """Whether bridges may make one feature count as another."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What :func:`assess` returns: one answer per lesion; none where the record has no lesion."""

    record: Record
    knowledge: Knowledge
    as_of: date
    policies: tuple[str, ...]
    bridged: bool
    cases: tuple[CaseAnswer, ...]


def assess(
    record: Record,
    *,
    as_of: date | None = None,
    knowledge: Knowledge | None = None,
    guidelines: Sequence[str] | None = None,
    assume: Sequence[str] = (),
    readings: Sequence[str] = (),
    bridges: bool = True,
    state: str | None = None,
    payer: str | None = None,
    validate: bool = True,
) -> Answer:
    """Assess every lesion of a record under every chosen guideline.

    :param as_of: the date on which the record is read; overrides that of the record.
    :param guidelines: ids, or ``all``; by default the newest version of each source that rests on no unverified clause,
        and of the coverage policies those that are, or may be, in force.
    :param assume: names of assumption policies; their verdict stands beside the strict one.
    :param readings: names of alternative readings that the verdicts of their guidelines follow.
    :param bridges: whether one feature may count as another by a named bridge.
    :param state: postal code of the state of service; overrides that of the record.
    :param payer: local name of a payer; overrides that of the record.
    :param validate: check the record against the shapes first; a fact that violates one counts as unknown: invalid.
    :raises UsageError: without a date, or for an unknown guideline, policy or payer.
    :raises KnowledgeBaseError: when the knowledge base is broken.
    :raises EngineError: when the verdict query fails; that is never a verdict.
    """
    k = knowledge or load_knowledge()
    day = as_of or record.as_of
    if day is None:
        raise UsageError(f"{record.place}: no as-of date; give one in the file (as_of) or with --as-of")
    if validate:
        record = mark_invalid(record)
    policies = tuple(k.policy(name) for name in assume if name != "strict")
    active = tuple(k.bridges.values()) if bridges else ()
    snapshot = infer(record, k, day, bridges=active)
    place = Place(snapshot, state, payers_of(snapshot, payer))
    names = k.guidelines if guidelines and ALL in guidelines else guidelines
    chosen = [k.guideline(g) for g in names] if names else list(place.default())
    views = _Views(
        snapshot,
        assumed=infer(record, k, day, bridges=active, policies=policies) if policies else None,
        unbridged=infer(record, k, day, bridges=()) if _bridged(snapshot, active) else None,
        bridged=bridges,
    )
    read_as = _readings(k, readings)
    cases = tuple(_case(record, x, views, policies, chosen, place, read_as) for x in record.lesions)
    return Answer(record, k, day, tuple(p.name for p in policies) or ("strict",), bridges, cases)


def _readings(k: Knowledge, names: Sequence[str]) -> dict[str, str]:
    """The chosen reading of each guideline that has it."""
    known = {r for g in k.guidelines.values() for r in g.readings}
    for name in names:
        if name not in known:
            raise UsageError(f"unknown reading {name!r}; known: {', '.join(sorted(known))}")
    return {g.id: name for g in k.guidelines.values() for name in names if name in g.readings}


@dataclass(frozen=True, slots=True)
class _Views:
    """The snapshot that is judged, and the ones whose verdicts stand beside."""

    judged: Snapshot
    assumed: Snapshot | None
    unbridged: Snapshot | None
    bridged: bool


def _bridged(snapshot: Snapshot, bridges: Iterable[Bridge]) -> bool:
    """Whether a bridge added anything."""
    rules = {b.iri for b in bridges}
    return any(f.rule in rules for facts in snapshot.present.values() for f in facts)


def _case(
    record: Record,
    lesion: Lesion,
    views: _Views,
    policies: Sequence[Policy],
    guidelines: Sequence[Guideline],
    place: Place,
    read_as: Mapping[str, str],
) -> CaseAnswer:
    procedure, snapshot = record.procedure, views.judged
    in_session = procedure is not None and (procedure.lesions is None or lesion.id in procedure.lesions)
    subject = lesion_subject(lesion.id)

    def judged(view: Snapshot | None, some: Iterable[Guideline]) -> dict[str, tuple[ClauseResult, ...]]:
        evaluator = Evaluator(view, subject, in_session) if view else None
        return {g.id: _clauses(g, evaluator) for g in some} if evaluator else {}

    clauses, assumed = judged(snapshot, guidelines), judged(views.assumed, guidelines)
    bridge_names = {b.iri: b.name for b in snapshot.knowledge.bridges.values()}
    used = {g.id: tuple(sorted({bridge_names[f.rule] for f in _used(clauses[g.id], bridge_names)})) for g in guidelines}
    unbridged = judged(views.unbridged, (g for g in guidelines if used[g.id]))
    conclusions = conclude(_variants(guidelines, clauses, {ASSUMED: assumed, UNBRIDGED: unbridged}, read_as))
    techniques = choice_of_procedure(snapshot, "technique") if in_session else frozenset()
    assessments = []
    for g in guidelines:
        beside_it = None
        if views.assumed is not None:
            facts = _used(assumed[g.id], {f.rule for f in assumptions_of(views.assumed)})
            names = tuple(p.name for p in policies)
            beside_it = Assumed(names, conclusions[g.id, ASSUMED], facts, assumed[g.id])
        reading = read_as.get(g.id, "")
        by_reading = {r: conclusions[g.id, "reading:" + r] for r in ("", *g.readings)}
        assessments.append(
            Assessment(
                g,
                by_reading.pop(reading),
                clauses[g.id],
                by_reading if g.readings else {},
                place.in_force(g),
                used[g.id],
                conclusions.get((g.id, UNBRIDGED)),
                beside_it,
                reading,
                techniques,
            )
        )
    return CaseAnswer(record, lesion, in_session, snapshot, tuple(assessments), views.bridged)


def _variants(
    guidelines: Sequence[Guideline],
    clauses: Mapping[str, tuple[ClauseResult, ...]],
    beside: Mapping[str, Mapping[str, tuple[ClauseResult, ...]]],
    read_as: Mapping[str, str],
) -> dict[Variant, list[tuple[Recommendation, Truth]]]:
    """The truths that each verdict reads: a reading adds the clauses that belong to it alone."""
    variants: dict[Variant, list[tuple[Recommendation, Truth]]] = {}

    def add(guideline: Guideline, name: str, rows: tuple[ClauseResult, ...], reading: str) -> None:
        kept = (c for c in rows if c.recommendation.reading in {"", reading})
        variants[guideline.id, name] = [(c.recommendation, c.truth) for c in kept]

    for g in guidelines:
        for reading in ("", *g.readings):
            add(g, "reading:" + reading, clauses[g.id], reading)
        for name, rows in beside.items():
            if g.id in rows:
                add(g, name, rows[g.id], read_as.get(g.id, ""))
    return variants


def _clauses(guideline: Guideline, evaluator: Evaluator) -> tuple[ClauseResult, ...]:
    return tuple(ClauseResult(r, evaluator.evaluate(r.criterion)) for r in guideline.recommendations)


def _used(clauses: Iterable[ClauseResult], rules: Iterable[str]) -> tuple[Fact, ...]:
    """Facts of the given rules on which the clauses rest, premises of premises included."""
    wanted = set(rules)
    found: dict[tuple[str, str, str], Fact] = {}

    def visit(fact: Fact) -> None:
        if fact.rule in wanted:
            found[fact.subject, fact.feature, fact.rule] = fact
        for premise in fact.premises:
            visit(premise)

    for clause in clauses:
        for leaf in clause.proof.leaves():
            for fact in leaf.facts:
                visit(fact)
    return tuple(found.values())


def cautions(assessment: Assessment) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Relative contraindications that are met, and those still to be screened."""
    met, unknown = (
        tuple(c.recommendation.id for c in assessment.having(RELATIVE, truth)) for truth in (Truth.MET, Truth.UNKNOWN)
    )
    return met, unknown


def documentation(assessment: Assessment) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Documentation duties that are fulfilled, and those that are not (yet) shown."""
    done = tuple(c.recommendation.id for c in assessment.having(DOCUMENTATION, Truth.MET))
    missing = tuple(c.recommendation.id for c in assessment.having(DOCUMENTATION, Truth.NOT_MET, Truth.UNKNOWN))
    return done, missing
