"""The front door: from a record to the verdict of every guideline on every lesion.

>>> from kypho_kg import assess, load_knowledge, read_records                           # doctest: +SKIP
>>> records, problems = read_records([Path("patient.yaml")], load_knowledge())          # doctest: +SKIP
>>> answer = assess(records[0])                                                         # doctest: +SKIP
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from kypho_kg._resources import resource_dir
from kypho_kg.errors import EngineError, UsageError
from kypho_kg.evaluation import Evaluator, Proof, Truth, lesion_subject
from kypho_kg.guidelines import DOCUMENTATION, RATES, RELATIVE, Guideline, Recommendation
from kypho_kg.inference import assumptions_of, infer
from kypho_kg.intake import mark_invalid
from kypho_kg.knowledge import Knowledge, Policy
from kypho_kg.loading import load_knowledge
from kypho_kg.record import PROCEDURE, Fact, Lesion, Record, TimeSpan
from kypho_kg.snapshot import Snapshot
from kypho_kg.store import Store, Triple
from kypho_kg.vocabulary import KYPHO, TYPE, local

UNDETERMINED = "Undetermined"
_TRUTHS = {Truth.MET: "Met", Truth.NOT_MET: "NotMet", Truth.UNKNOWN: "UnknownTruth"}
VERDICTS = (
    "NotApplicable", "Contraindicated", "NotIndicated", "Candidate", "CandidateWithCaution",
    "CandidateScreeningOpen", UNDETERMINED, "Rated", "NoVerdict",
)  # fmt: skip


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
class Conclusion:
    """A verdict and the verdicts in which it can still end."""

    verdict: str
    reachable: tuple[str, ...]


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
    assumed: Assumed | None = None
    reading: str = ""
    """The alternative reading that was chosen for the verdict, empty for none."""

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
    def categories(self) -> tuple[str, ...]:
        """The categories in which a rating guideline puts the case."""
        return tuple(c.recommendation.rating for c in self.having(RATES, Truth.MET))


@dataclass(frozen=True, slots=True)
class CaseAnswer:
    """All judgements on one lesion of a patient."""

    record: Record
    lesion: Lesion
    in_session: bool
    snapshot: Snapshot
    assessments: tuple[Assessment, ...]


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
    :param guidelines: ids; by default all that rest on no unverified clause, and with ``state`` or ``payer`` only the
        coverage policies in force.
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
        raise UsageError(f"patient {record.patient}: no as-of date; give one in the file (as_of) or with --as-of")
    if validate:
        record = mark_invalid(record)
    policies = tuple(k.policy(name) for name in assume if name != "strict")
    active = tuple(k.bridges.values()) if bridges else ()
    snapshot = infer(record, k, day, bridges=active)
    place = _Place(snapshot, state, _payer(snapshot, payer))
    chosen = [k.guideline(g) for g in guidelines] if guidelines else list(place.default(picked=bool(state or payer)))
    assumed = infer(record, k, day, bridges=active, policies=policies) if policies else None
    read_as = _readings(k, readings)
    cases = tuple(_case(record, x, snapshot, assumed, policies, chosen, place, read_as) for x in record.lesions)
    return Answer(record, k, day, tuple(p.name for p in policies) or ("strict",), bridges, cases)


def _readings(k: Knowledge, names: Sequence[str]) -> dict[str, str]:
    """The chosen reading of each guideline that has it."""
    known = {r for g in k.guidelines.values() for r in g.readings}
    for name in names:
        if name not in known:
            raise UsageError(f"unknown reading {name!r}; known: {', '.join(sorted(known))}")
    return {g.id: name for g in k.guidelines.values() for name in names if name in g.readings}


@dataclass(frozen=True, slots=True)
class _Place:
    """When, where and at whose cost the service is: what decides which policies are in force."""

    snapshot: Snapshot
    state: str | None
    payers: frozenset[str]
    """The payers of which one pays; empty where none is known."""

    def default(self, *, picked: bool) -> Iterator[Guideline]:
        """What is assessed unless guidelines are named; with a state or payer only the policies in force there."""
        for guideline in self.snapshot.knowledge.guidelines.values():
            policy = bool(guideline.states or guideline.payers)
            if picked and policy and not self.in_force(guideline):
                continue
            if not guideline.rests_on_unverified or (picked and policy):
                yield guideline

    def in_force(self, g: Guideline) -> bool | None:
        """By service date (else the as-of date), state and payer."""
        procedure = self.snapshot.record.procedure
        day = procedure.service_date if procedure and procedure.service_date else TimeSpan.of(self.snapshot.as_of)
        state = self.state or (procedure.state if procedure else None)
        answers: list[bool | None] = []
        if g.effective_from:
            answers.append(_compare(day.start.date() >= g.effective_from, day.end.date() >= g.effective_from))
        if g.effective_until:
            answers.append(_compare(day.end.date() <= g.effective_until, day.start.date() <= g.effective_until))
        if g.states:
            answers.append(None if state is None else state in g.states)
        if g.payers:
            answers.append(
                _compare(self.payers <= set(g.payers), bool(self.payers & set(g.payers))) if self.payers else None
            )
        return False if False in answers else None if None in answers else True


def _payer(snapshot: Snapshot, named: str | None) -> frozenset[str]:
    """The payer that was named, else what the snapshot holds."""
    feature = snapshot.knowledge.by_name["payer"]
    if named is None:
        value = snapshot.value(PROCEDURE, feature.iri).value
        return value if isinstance(value, frozenset) else frozenset()
    if KYPHO + named not in feature.values:
        known = ", ".join(sorted(map(local, feature.values)))
        raise UsageError(f"unknown payer {named!r}; known: {known}")
    return frozenset({KYPHO + named})


def _compare(certainly: bool, possibly: bool) -> bool | None:
    return True if certainly else None if possibly else False


def _case(
    record: Record,
    lesion: Lesion,
    snapshot: Snapshot,
    assumed: Snapshot | None,
    policies: Sequence[Policy],
    guidelines: Sequence[Guideline],
    place: _Place,
    read_as: Mapping[str, str],
) -> CaseAnswer:
    procedure = record.procedure
    in_session = procedure is not None and (procedure.lesions is None or lesion.id in procedure.lesions)
    subject = lesion_subject(lesion.id)
    strict = Evaluator(snapshot, subject, in_session)
    beside = Evaluator(assumed, subject, in_session) if assumed else None
    clauses = {g.id: _clauses(g, strict) for g in guidelines}
    other = {g.id: _clauses(g, beside) for g in guidelines} if beside else {}
    conclusions = conclude(_variants(guidelines, clauses, other, read_as))
    names = tuple(p.name for p in policies)
    assessments = []
    bridge_names = {b.iri: b.name for b in snapshot.knowledge.bridges.values()}
    for g in guidelines:
        beside_it = None
        if assumed is not None:
            used = _used(other[g.id], {f.rule for f in assumptions_of(assumed)})
            beside_it = Assumed(names, conclusions[g.id, "assumed"], used, other[g.id])
        reading = read_as.get(g.id, "")
        by_reading = {r: conclusions[g.id, "reading:" + r] for r in ("", *g.readings)}
        assessments.append(
            Assessment(
                g,
                by_reading.pop(reading),
                clauses[g.id],
                by_reading if g.readings else {},
                place.in_force(g),
                tuple(sorted({bridge_names[f.rule] for f in _used(clauses[g.id], bridge_names)})),
                beside_it,
                reading,
            )
        )
    return CaseAnswer(record, lesion, in_session, snapshot, tuple(assessments))


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


# -- verdicts

Variant = tuple[str, str]
"""Id of a guideline, and ``assumed`` or ``reading:NAME``; the name is empty for the guideline without alternatives."""


def _variants(
    guidelines: Sequence[Guideline],
    clauses: Mapping[str, tuple[ClauseResult, ...]],
    assumed: Mapping[str, tuple[ClauseResult, ...]],
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
        if g.id in assumed:
            add(g, "assumed", assumed[g.id], read_as.get(g.id, ""))
    return variants


def verdict_graph(variants: dict[Variant, list[tuple[Recommendation, Truth]]]) -> Iterator[Triple]:
    """Assessments and clause truths as RDF: the input of ``queries/derive/verdict.rq``."""
    for (guideline, variant), rows in variants.items():
        node = _assessment_iri(guideline, variant)
        yield node, TYPE, KYPHO + "Assessment"
        for recommendation, truth in rows:
            clause = f"{node}/{recommendation.clause}"
            yield node, KYPHO + "considers", recommendation.iri
            yield node, KYPHO + "hasClauseTruth", clause
            yield clause, KYPHO + "ofRecommendation", recommendation.iri
            yield clause, KYPHO + "effect", KYPHO + recommendation.effect
            yield clause, KYPHO + "truth", KYPHO + _TRUTHS[truth]


def _assessment_iri(guideline: str, variant: str) -> str:
    return f"urn:kypho:assessment/{guideline}/{variant}"


def conclude(variants: dict[Variant, list[tuple[Recommendation, Truth]]]) -> dict[Variant, Conclusion]:
    """Derive all verdicts of a case by the bundled SPARQL query.

    :raises EngineError: when a recommendation has not exactly one truth, or an assessment not exactly one verdict.
    """
    store = Store(verdict_graph(variants))
    for row in store.select(derive_query("clause-truth-count")):
        raise EngineError(f"{row['recommendation']}: has not exactly one truth in {row['assessment']}")
    verdicts: dict[str, list[str]] = {}
    ends: dict[str, set[str]] = {}
    for s, p, o in store.construct(derive_query("verdict")):
        if p == KYPHO + "verdict":
            verdicts.setdefault(s, []).append(local(str(o)))
        else:
            ends.setdefault(s, set()).add(local(str(o)))
    conclusions = {}
    for variant in variants:
        node = _assessment_iri(*variant)
        found = verdicts.get(node, [])
        if len(found) != 1 or found[0] not in VERDICTS or not ends.get(node):
            raise EngineError(f"{node}: expected one verdict, got {found or 'none'}")
        conclusions[variant] = Conclusion(found[0], tuple(v for v in VERDICTS if v in ends[node]))
    return conclusions


@functools.cache
def derive_query(name: str) -> str:
    """The text of a query of ``queries/derive``."""
    return (resource_dir("queries") / "derive" / f"{name}.rq").read_text("utf-8")


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
