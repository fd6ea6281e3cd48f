"""Assessed records as named graphs, three of each patient, that SPARQL asks beside the knowledge base.

*Asserted* is what the record says, *inferred* what the snapshot adds to it (values as of the date, derived facts, types
of lesions, what is withheld), *judged* what the guidelines say of it. The last two can be dropped and derived again:
they hold the same triples then. Each graph says of itself of which kind it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal

from kypho_kg import graph
from kypho_kg.candidacy import Answer, Assessment, CaseAnswer, ClauseResult
from kypho_kg.classification import lesion_types
from kypho_kg.coverage import coverage_line
from kypho_kg.criteria import Op
from kypho_kg.evaluation import Proof, Truth
from kypho_kg.explanation import explain
from kypho_kg.missing import Missing
from kypho_kg.provenance import Run, primary_sources, run_of
from kypho_kg.reasons import deciding, near_misses, reasons_of
from kypho_kg.record import LESION, PROCEDURE, Fact, Polarity, Range, Record
from kypho_kg.snapshot import Snapshot
from kypho_kg.state import Gap, Resolved
from kypho_kg.store import Literal, Triple
from kypho_kg.verdicts import Conclusion
from kypho_kg.vocabulary import HAS_FINDING, KYPHO, PROV, SKOS, TYPE, XSD, local
from kypho_kg.words import cells_words

ASSERTED, INFERRED, JUDGED = KINDS = ("asserted", "inferred", "judged")

MOST_POSSIBLE = 8
"""Possible sets that are written of each verdict, the smallest first."""
_FROM = PROV + "wasDerivedFrom"
_TRUTHS = {Truth.MET: "Met", Truth.NOT_MET: "NotMet", Truth.UNKNOWN: "UnknownTruth"}


def case_graphs(answers: Iterable[Answer]) -> Mapping[str, list[Triple]]:
    """The triples of each graph, by the name of the graph; the same answers give the same triples.

    A patient without a case has the asserted graph alone.
    """
    graphs: dict[str, list[Triple]] = {}
    for answer in answers:
        asserted = asserted_graph(answer.record)
        graphs |= asserted
        if answer.cases:
            ((of, said),) = asserted.items()
            run = run_of(answer, of, said)
            writer = _Writer(answer, answer.cases[0].snapshot, run)
            inferred, judged = (graph_name(answer.record, kind) for kind in (INFERRED, JUDGED))
            rows = (*run.made(inferred), *primary_sources(said), *writer.inferred())
            graphs[inferred] = [*_kind(inferred, INFERRED), *dict.fromkeys(rows)]
            rows = (*run.made(judged), *run.triples(), *writer.judged())
            filled = Literal(coverage_line(answer.knowledge, [answer.record]), language="en")
            graphs[judged] = [*_kind(judged, JUDGED), (judged, KYPHO + "coverageNote", filled), *dict.fromkeys(rows)]
    return graphs


def asserted_graph(record: Record) -> Mapping[str, list[Triple]]:
    """The asserted graph of a record by its name: what can be written without any judgement."""
    name = graph_name(record, ASSERTED)
    return {name: [*_kind(name, ASSERTED), *graph.plain_triples(graph.record_graph(record))]}


def graph_name(record: Record, kind: str) -> str:
    """The name of a patient's graph: it lies under the name of the patient.

    :param kind: ``asserted``, ``inferred`` or ``judged``.
    """
    return f"{graph.patient_iri(record)}/graph/{kind}"


def _kind(name: str, kind: str) -> Iterator[Triple]:
    yield name, TYPE, f"{KYPHO}{kind.capitalize()}Graph"


class _Writer:
    """Writes what is inferred and judged of one patient."""

    def __init__(self, answer: Answer, snapshot: Snapshot, run: Run) -> None:
        self.answer = answer
        self.run = run
        self.record: Record = answer.record
        self.snapshot = snapshot
        self.derived = tuple(dict.fromkeys(self._derived()))
        self._names = _names(self.record, self.derived)

    def _subject(self, subject: str) -> str:
        if subject.startswith(LESION):
            return str(graph.lesion_iri(self.record, subject.removeprefix(LESION)))
        return str((graph.procedure_iri if subject == PROCEDURE else graph.patient_iri)(self.record))

    def _links(self, node: str, predicate: str, facts: Iterable[Fact]) -> Iterator[Triple]:
        for fact in facts:
            name = self._names(fact)
            if name:
                yield node, predicate, name

    # -- inferred

    def _derived(self) -> Iterator[Fact]:
        """Facts that rules yielded, before the facts that rest on them."""
        snapshot, assumed = self.snapshot, [a.assumed for c in self.answer.cases for a in c.assessments if a.assumed]

        def visit(fact: Fact) -> Iterator[Fact]:
            for premise in fact.premises:
                yield from visit(premise)
            if fact.rule:
                yield fact

        values = (f for state in snapshot.values.values() for f in (*state.facts, *state.ruled_out.values()))
        for fact in (*snapshot.derived, *values, *(f for a in assumed for f in a.assumptions)):
            yield from visit(fact)

    def inferred(self) -> Iterator[Triple]:
        """What follows from the record as of the date, before any guideline is asked."""
        record, snapshot = self.record, self.snapshot
        yield from graph.plain_triples(graph.derived_facts_graph(record, self.derived))
        for index, fact in enumerate(self.derived):
            node = str(graph.derived_fact_iri(record, index))
            yield node, KYPHO + "yieldedBy", fact.rule
            yield from self._links(node, _FROM, fact.premises)
        for (subject, feature), state in sorted(snapshot.values.items()):
            yield from self._state(subject, feature, state)
        for subject in (*snapshot.subjects(), PROCEDURE):
            yield from self._findings(subject)
        for fact in snapshot.stale:
            yield from self._left_out(fact, "stale")
        for fact, reason in snapshot.ignored:
            yield from self._left_out(fact, reason)
        for case in self.answer.cases:
            node = self._subject(LESION + case.lesion.id)
            for type_ in lesion_types(snapshot, case.lesion.id):
                if type_.truth is Truth.MET:
                    yield node, TYPE, type_.iri
                elif type_.truth is Truth.UNKNOWN:
                    yield node, KYPHO + "possibleType", type_.iri

    def _state(self, subject: str, feature: str, state: Resolved) -> Iterator[Triple]:
        """The value of a feature as of the date, as far as it is one value; else the bounds or the cause."""
        node, value = self._subject(subject), state.value
        if isinstance(value, Range):
            if value.exact is not None:
                yield node, feature, _decimal(value.exact)
        elif isinstance(value, frozenset):
            if len(value) == 1:
                yield node, feature, next(iter(value))
        elif isinstance(value, str):
            named = f"{node}/value/{local(feature)}"
            yield node, feature, named
            yield named, TYPE, value
        if state.gap.facts:
            yield from self._open_point(f"{node}/open/{local(feature)}", subject, feature, state.gap)

    def _findings(self, subject: str) -> Iterator[Triple]:
        node, snapshot = self._subject(subject), self.snapshot
        for cls in sorted({f.feature for f in snapshot.present.get(subject, ())}):
            named = f"{node}/finding/{local(cls)}"
            yield node, HAS_FINDING, named
            yield named, TYPE, cls
        for cls in sorted({f.feature for f in snapshot.absent.get(subject, ())}):
            yield node, KYPHO + "ruledOut", cls
        for cls, gap in snapshot.gaps.get(subject, ()):
            yield from self._open_point(f"{node}/open/{local(cls)}", subject, cls, gap)

    def _left_out(self, fact: Fact, reason: str) -> Iterator[Triple]:
        name = self._names(fact)
        if name:
            yield name, KYPHO + "leftOut", Literal(reason)

    def _open_point(self, node: str, subject: str, feature: str, gap: Gap) -> Iterator[Triple]:
        yield node, TYPE, KYPHO + "OpenPoint"
        if subject:
            yield node, KYPHO + "aboutSubject", self._subject(subject)
        yield node, KYPHO + "feature", feature
        yield node, KYPHO + "causeOfUnknown", KYPHO + gap.cause
        if gap.reason:
            yield node, KYPHO + "reason", Literal(gap.reason)
        yield from self._links(node, KYPHO + "restsOnFact", gap.facts)

    # -- judged

    def judged(self) -> Iterator[Triple]:
        """What each guideline says of each case, clause by clause, and what would settle it."""
        for explained in explain(self.answer):
            case = explained.case
            yield from self._links(
                str(graph.case_iri(self.record, case.lesion.id)), KYPHO + "leavesUnread", explained.unread
            )
            for assessment in case.assessments:
                yield from self._assessment(case, assessment)
                found = explained.missing(assessment)
                if found is not None:
                    yield from self._settling(self._node(case, assessment), found)

    def _node(self, case: CaseAnswer, a: Assessment) -> str:
        return f"{graph.case_iri(self.record, case.lesion.id)}/assessment/{a.guideline.id}"

    def _settling(self, node: str, found: Missing) -> Iterator[Triple]:
        """The sets of features that would settle a verdict, as far as they are told."""
        k = self.answer.knowledge
        yield node, KYPHO + "searchWasExact", Literal(str(found.exact).lower(), XSD + "boolean")
        for number, some in enumerate(found.decisive, start=1):
            named = f"{node}/decisive/{number}"
            yield node, KYPHO + "hasSettlingSet", named
            yield named, TYPE, KYPHO + "DecisiveSet"
            yield named, KYPHO + "numberOfFeatures", Literal(str(len(some)), XSD + "integer")
            for v in some:
                yield from self._wanted(named, v.subject, v.feature)
        told = Counter[str]()
        for possible in found.possible:
            told[possible.verdict] += 1
            if told[possible.verdict] > MOST_POSSIBLE:
                continue
            named = f"{node}/possible/{possible.verdict}/{told[possible.verdict]}"
            yield node, KYPHO + "hasSettlingSet", named
            yield named, TYPE, KYPHO + "PossibleSet"
            yield named, KYPHO + "numberOfFeatures", Literal(str(len(possible.features)), XSD + "integer")
            yield named, KYPHO + "settlesAs", KYPHO + possible.verdict
            for wanted in possible.ways[0]:
                v = wanted.variable
                yield from self._wanted(named, v.subject, v.feature, cells_words(k, wanted))

    def _wanted(self, some: str, subject: str, feature: str, values: str = "") -> Iterator[Triple]:
        node = f"{some}/{subject.replace(':', '/')}/{local(feature)}"
        yield some, KYPHO + "hasSettlingFeature", node
        yield node, TYPE, KYPHO + "SettlingFeature"
        yield node, KYPHO + "feature", feature
        yield node, KYPHO + "aboutSubject", self._subject(subject)
        if values:
            yield node, KYPHO + "statedWords", Literal(values)

    def _assessment(self, case: CaseAnswer, a: Assessment) -> Iterator[Triple]:
        whole, node = str(graph.case_iri(self.record, case.lesion.id)), self._node(case, a)
        yield from self._conclusion(node, whole, a, a.conclusion)
        for name in a.bridges:
            yield node, KYPHO + "usesBridge", self.answer.knowledge.bridges[name].iri
        if a.unbridged:
            yield node, KYPHO + "verdictWithoutBridges", KYPHO + a.unbridged.verdict
        if a.reading:
            yield node, KYPHO + "inVariant", self._reading(a, a.reading)
        for reading, conclusion in a.readings.items():
            variant = f"{node}/reading/{reading or 'none'}"
            yield from self._conclusion(variant, whole, a, conclusion)
            if reading:
                yield variant, KYPHO + "inVariant", self._reading(a, reading)
        if a.assumed:
            variant = f"{node}/assumed"
            yield from self._conclusion(variant, whole, a, a.assumed.conclusion)
            for name in a.assumed.policies:
                yield variant, KYPHO + "inVariant", self.answer.knowledge.policy(name).iri
            yield from self._links(variant, _FROM, a.assumed.assumptions)
        for clause in a.counted:
            yield from self._clause(f"{node}/{clause.recommendation.clause}", node, clause, case.snapshot)

    def _conclusion(self, node: str, case: str, a: Assessment, conclusion: Conclusion) -> Iterator[Triple]:
        yield node, TYPE, KYPHO + "Assessment"
        yield from self.run.made(node)
        yield node, KYPHO + "ofCase", case
        yield node, KYPHO + "byGuideline", a.guideline.iri
        yield node, KYPHO + "verdict", KYPHO + conclusion.verdict
        for verdict in conclusion.reachable:
            yield node, KYPHO + "reachable", KYPHO + verdict

    def _reading(self, a: Assessment, name: str) -> str:
        t = self.answer.knowledge.triples
        known = set(t.subjects(TYPE, KYPHO + "Reading"))
        return next(iri for iri in t.subjects(SKOS + "notation", Literal(name)) if iri in known)

    def _clause(self, node: str, assessment: str, clause: ClauseResult, snapshot: Snapshot) -> Iterator[Triple]:
        yield assessment, KYPHO + "considers", clause.recommendation.iri
        yield assessment, KYPHO + "hasClauseTruth", node
        yield assessment, _FROM, node
        yield node, TYPE, KYPHO + "ClauseTruth"
        yield node, KYPHO + "ofRecommendation", clause.recommendation.iri
        yield node, KYPHO + "effect", KYPHO + clause.recommendation.effect
        yield node, KYPHO + "truth", KYPHO + _TRUTHS[clause.truth]
        if clause.truth is not Truth.UNKNOWN:
            for leaf in deciding(clause.proof):
                for link in (KYPHO + "restsOnFact", _FROM):
                    yield from self._links(node, link, leaf.facts)
            for number, reason in enumerate(reasons_of(snapshot, clause).sets, start=1):
                named = f"{node}/reason/{number}"
                yield node, KYPHO + "hasReason", named
                yield named, TYPE, KYPHO + "ClauseReason"
                yield from sorted(self._links(named, KYPHO + "restsOnFact", reason))
            for number, leaf in enumerate(near_misses(clause.proof), start=1):
                if leaf.distance is not None:
                    named = f"{node}/near-miss/{number}"
                    yield node, KYPHO + "hasNearMiss", named
                    yield named, TYPE, KYPHO + "NearMiss"
                    yield named, KYPHO + "feature", leaf.criterion.term
                    yield named, KYPHO + "distanceToLimit", _decimal(abs(leaf.distance))
            return
        points = dict.fromkeys(map(_point, clause.proof.unknown_leaves()))
        for number, (subject, feature, gap) in enumerate(points, start=1):
            point = f"{node}/open/{number}"
            yield node, KYPHO + "hasOpenPoint", point
            yield from self._open_point(point, subject, feature, gap)
            yield from self._links(node, _FROM, gap.facts)


def _point(leaf: Proof) -> tuple[str, str, Gap]:
    """Subject, feature and gap of an unknown leaf; of a band that the source leaves open, the class itself."""
    assert leaf.gap is not None
    c = leaf.criterion
    return leaf.subject, c.name if c.op is Op.OPEN else c.term, leaf.gap


def _names(record: Record, derived: Iterable[Fact]) -> Callable[[Fact], str]:
    """The nodes of recorded and derived facts; the snapshot may have turned a fact into an indeterminate one."""
    exact: dict[Fact, str] = {}
    loose: dict[Fact, str] = {}
    nodes = [(f, str(graph.fact_iri(record, i))) for i, f in enumerate(record.facts)]
    nodes += [(f, str(graph.derived_fact_iri(record, i))) for i, f in enumerate(derived)]
    for fact, node in nodes:
        exact.setdefault(fact, node)
        loose.setdefault(_loosely(fact), node)
    return lambda fact: exact.get(fact) or loose.get(_loosely(fact)) or ""


def _loosely(fact: Fact) -> Fact:
    """A fact without what the snapshot changes in it."""
    value = None if isinstance(fact.value, str) else fact.value
    return replace(fact, value=value, polarity=Polarity.PRESENT, cause=None, premises=())


def _decimal(number: Decimal) -> Literal:
    return Literal(f"{number:f}", XSD + "decimal")
