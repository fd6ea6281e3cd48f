"""Records, and the ontology, as graphs of rdflib.

The vocabulary of a record is the ontology's module ``record``. Every node has a name, so that a result of a check or a
query leads back to the fact it speaks of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from urllib.parse import quote

from rdflib import DCTERMS, RDF, XSD, BNode, Graph, Literal, URIRef
from rdflib.namespace import ClosedNamespace

from kypho_kg import store, vocabulary
from kypho_kg.errors import InputError, Problem
from kypho_kg.record import LESION, PATIENT, PROCEDURE, Fact, Mood, Polarity, Range, Record, Source, Status, TimeSpan

_Triple = tuple[URIRef, URIRef, URIRef | Literal]


_TERMS = """
    Case Conflict EvidenceStatement Fact Guideline OptionRating Patient PatientRecord Position ProposedProcedure
    RatingCategory Recommendation RecordSource Study VertebralLesion
    Observed Planned Ordered PresentPolarity AbsentPolarity IndeterminatePolarity Confirmed Unconfirmed
    Provisional Differential Refuted EnteredInError aboutSubject asOf causeOfIndeterminacy concernsPatient
    constructed feature forProcedure hasLesion hasSource indexLesion lesionId mappingsSha256 mood nonConformingTo origin
    overriddenBy patientId polarity proposedFor quote rangeHigh rangeHighExcluded rangeLow rangeLowExcluded
    reason recordFile recordNote recordOf recordedClass recordedFrom recordedUntil serviceDate sourceAuthor
    sourceDate sourceDocument stateCode statedTime statedUnit statedValue statedWords treats
    verificationStatus
"""
KYPHO = ClosedNamespace(vocabulary.KYPHO, _TERMS.split())
"""The structural terms of records, guidelines, conflicts and evidence; any other name is an error."""

_MOODS = {Mood.OBSERVED: KYPHO.Observed, Mood.PLANNED: KYPHO.Planned, Mood.ORDERED: KYPHO.Ordered}
_POLARITIES = {
    Polarity.PRESENT: KYPHO.PresentPolarity,
    Polarity.ABSENT: KYPHO.AbsentPolarity,
    Polarity.INDETERMINATE: KYPHO.IndeterminatePolarity,
}
_STATUSES = {
    Status.CONFIRMED: KYPHO.Confirmed,
    Status.UNCONFIRMED: KYPHO.Unconfirmed,
    Status.PROVISIONAL: KYPHO.Provisional,
    Status.DIFFERENTIAL: KYPHO.Differential,
    Status.REFUTED: KYPHO.Refuted,
    Status.ENTERED_IN_ERROR: KYPHO.EnteredInError,
}


def ontology_graph(triples: Iterable[store.Triple]) -> Graph:
    """Copy triples as they were parsed; no literal is repaired."""
    graph = Graph()
    for s, p, o in triples:
        graph.add((_resource(s), URIRef(p), _resource(o) if isinstance(o, str) else rdf_literal(o)))
    return graph


def _resource(term: str) -> URIRef | BNode:
    return BNode(term[2:]) if term.startswith("_:") else URIRef(term)


def rdf_literal(term: store.Literal) -> Literal:
    """Copy a literal as it was parsed."""
    if term.language or term.datatype == str(XSD.string):  # rdflib keeps plain and xsd:string literals apart
        return Literal(term.text, lang=term.language or None)
    return Literal(term.text, datatype=URIRef(term.datatype), normalize=False)


def patient_iri(record: Record) -> URIRef:
    """Name the patient; all other nodes of a record lie under it."""
    return URIRef(f"urn:kypho:patient:{quote(record.patient, safe='')}")


def lesion_iri(record: Record, lesion: str) -> URIRef:
    """Name a lesion, by its id."""
    return URIRef(f"{patient_iri(record)}/lesion/{quote(lesion, safe='')}")


def procedure_iri(record: Record) -> URIRef:
    """Name the proposed procedure."""
    return URIRef(f"{patient_iri(record)}/procedure")


def case_iri(record: Record, lesion: str) -> URIRef:
    """Name the case of which a lesion, given by its id, is the index lesion."""
    return URIRef(f"{patient_iri(record)}/case/{quote(lesion, safe='')}")


def fact_iri(record: Record, index: int) -> URIRef:
    """Name a fact, by its index in ``record.facts``."""
    return URIRef(f"{patient_iri(record)}/fact/{index}")


def derived_fact_iri(record: Record, index: int) -> URIRef:
    """Name a fact that a rule yielded, by its place among those of a snapshot."""
    return URIRef(f"{patient_iri(record)}/derived/{index}")


def has_procedure(record: Record) -> bool:
    """Tell whether a procedure is proposed: one is given, or a fact is about it."""
    return record.procedure is not None or any(fact.subject == PROCEDURE for fact in record.facts)


def record_graph(record: Record) -> Graph:
    """Write a record as RDF: the patient, lesions, procedure, cases, facts and sources.

    It may hold several values of one functional feature, as the record does; it is no input for a reasoner.

    :raises InputError: when two lesions have one id, a number is not finite, or a fact is about nothing that a record
        knows.
    """
    ids = [lesion.id for lesion in record.lesions]
    if twice := {id_ for id_ in ids if ids.count(id_) > 1}:
        raise InputError([Problem(f"lesion {id_}", "two lesions have this id") for id_ in sorted(twice)])
    graph = Graph()
    graph.bind("kypho", vocabulary.KYPHO)
    for triple in (*_things(record), *_facts(record)):
        graph.add(triple)
    return graph


def derived_facts_graph(record: Record, facts: Sequence[Fact]) -> Graph:
    """Write facts that rules yielded as RDF, in the form of recorded ones; a rule has no source document."""
    graph = Graph()
    for index, fact in enumerate(facts):
        for triple in _fact(record, derived_fact_iri(record, index), index, fact):
            graph.add(triple)
    return graph


def plain_triples(graph: Graph) -> Iterator[store.Triple]:
    """The triples of a graph in the form that the store takes, sorted."""
    for s, p, o in sorted(graph):
        if isinstance(o, Literal):
            term: store.Term = store.Literal(str(o), str(o.datatype or XSD.string), o.language or "")
        else:
            term = str(o)
        yield str(s), str(p), term


def _things(record: Record) -> Iterator[_Triple]:
    patient, procedure = patient_iri(record), procedure_iri(record)
    node = URIRef(f"{patient}/record")
    yield node, RDF.type, KYPHO.PatientRecord
    yield node, KYPHO.recordOf, patient
    yield node, KYPHO.constructed, Literal(record.constructed)
    if record.as_of:
        yield node, KYPHO.asOf, Literal(record.as_of)
    yield from _texts(node, {DCTERMS.bibliographicCitation: record.citation})
    texts = {KYPHO.recordFile: record.files, KYPHO.recordNote: record.notes, KYPHO.mappingsSha256: record.mappings}
    for name, several in texts.items():
        for text in several:
            yield node, name, Literal(text)
    yield patient, RDF.type, KYPHO.Patient
    yield patient, KYPHO.patientId, Literal(record.patient)
    proposed = has_procedure(record)
    if proposed:
        yield procedure, RDF.type, KYPHO.ProposedProcedure
        yield procedure, KYPHO.proposedFor, patient
    if record.procedure:
        for id_ in record.procedure.lesions or ():
            yield procedure, KYPHO.treats, lesion_iri(record, id_)
        if record.procedure.state is not None:
            yield procedure, KYPHO.stateCode, Literal(record.procedure.state)
        if record.procedure.service_date:
            yield from _days(procedure, KYPHO.serviceDate, record.procedure.service_date)
    for lesion in record.lesions:
        node, case = lesion_iri(record, lesion.id), case_iri(record, lesion.id)
        yield node, RDF.type, KYPHO.VertebralLesion
        yield node, KYPHO.lesionId, Literal(lesion.id)
        yield patient, KYPHO.hasLesion, node
        yield case, RDF.type, KYPHO.Case
        yield case, KYPHO.concernsPatient, patient
        yield case, KYPHO.indexLesion, node
        if proposed:
            yield case, KYPHO.forProcedure, procedure


def _facts(record: Record) -> Iterator[_Triple]:
    sources: dict[Source, URIRef] = {}
    for index, fact in enumerate(record.facts):
        node = fact_iri(record, index)
        yield from _fact(record, node, index, fact)
        for link, source in ((KYPHO.hasSource, fact.source), (KYPHO.overriddenBy, fact.overridden_by)):
            if source and source != Source(""):
                new = source not in sources
                where = sources.setdefault(source, URIRef(f"{patient_iri(record)}/source/{len(sources)}"))
                yield node, link, where
                if new:
                    yield from _source(where, source)


def _fact(record: Record, node: URIRef, index: int, fact: Fact) -> Iterator[_Triple]:
    yield node, RDF.type, KYPHO.Fact
    yield node, KYPHO.aboutSubject, _subject(record, index, fact)
    yield node, KYPHO.feature, URIRef(fact.feature)
    yield node, KYPHO.mood, _MOODS[fact.mood]
    yield node, KYPHO.polarity, _POLARITIES[fact.polarity]
    yield node, KYPHO.verificationStatus, _STATUSES[fact.status]
    yield from _value(node, index, fact)
    if fact.cause:
        yield node, KYPHO.causeOfIndeterminacy, URIRef(vocabulary.KYPHO + fact.cause)
    yield from _texts(
        node,
        {
            KYPHO.reason: fact.reason,
            KYPHO.statedWords: fact.words,
            KYPHO.statedUnit: fact.unit,
            KYPHO.nonConformingTo: fact.invalid,
        },
    )
    if fact.time:
        yield node, KYPHO.recordedFrom, Literal(fact.time.start.date())
        yield node, KYPHO.recordedUntil, Literal(fact.time.end.date())
        yield node, KYPHO.statedTime, Literal(fact.time.text)


def _subject(record: Record, index: int, fact: Fact) -> URIRef:
    if fact.subject == PATIENT:
        return patient_iri(record)
    if fact.subject == PROCEDURE:
        return procedure_iri(record)
    if fact.subject.startswith(LESION):
        return lesion_iri(record, fact.subject.removeprefix(LESION))
    raise InputError(
        Problem(f"fact {index}", f"{fact.subject!r} is no subject of a fact", f"{PATIENT}, {PROCEDURE} or {LESION}ID")
    )


def _value(node: URIRef, index: int, fact: Fact) -> Iterator[_Triple]:
    feature = URIRef(fact.feature)
    match fact.value:
        case Range() as numbers:
            for bound in (numbers.low, numbers.high):
                if bound is not None:
                    yield node, feature, _decimal(index, bound)
            if numbers.exact is None:
                yield from _interval(node, index, numbers)
        case frozenset() as individuals:
            for individual in sorted(individuals):
                yield node, feature, URIRef(individual)
        case TimeSpan() as time:
            yield from _days(node, feature, time)
            yield node, KYPHO.statedValue, Literal(time.text)
        case str() as cls:
            yield node, KYPHO.recordedClass, URIRef(cls)


def _interval(node: URIRef, index: int, numbers: Range) -> Iterator[_Triple]:
    yield node, KYPHO.statedValue, Literal(str(numbers))
    if numbers.low is not None:
        yield node, KYPHO.rangeLow, _decimal(index, numbers.low)
        yield node, KYPHO.rangeLowExcluded, Literal(numbers.low_open)
    if numbers.high is not None:
        yield node, KYPHO.rangeHigh, _decimal(index, numbers.high)
        yield node, KYPHO.rangeHighExcluded, Literal(numbers.high_open)


def _decimal(index: int, number: Decimal) -> Literal:
    if not number.is_finite():
        raise InputError(Problem(f"fact {index}", f"{number} is no number"))
    return Literal(number, datatype=XSD.decimal)


def _days(node: URIRef, name: URIRef, time: TimeSpan) -> Iterator[_Triple]:
    for day in sorted({time.start.date(), time.end.date()}):
        yield node, name, Literal(day)


def _source(node: URIRef, source: Source) -> Iterator[_Triple]:
    yield node, RDF.type, KYPHO.RecordSource
    yield from _texts(
        node,
        {
            KYPHO.origin: source.origin,
            KYPHO.sourceDocument: source.document,
            KYPHO.sourceDate: source.date,
            KYPHO.sourceAuthor: source.author,
            KYPHO.quote: source.quote,
        },
    )


def _texts(node: URIRef, texts: dict[URIRef, str]) -> Iterator[_Triple]:
    for name, text in texts.items():
        if text:
            yield node, name, Literal(text)
