"""The resolved snapshot of one case as OWL axioms, for reasoners and Protégé.

What is derived (bridges, closures, assumptions) stands in the snapshot already; what is withheld stays unknown here
too. Dates never appear (docs/case-model.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from urllib.parse import quote

from kypho_kg.criteria import Op
from kypho_kg.knowledge import Feature
from kypho_kg.record import LESION, PATIENT, PROCEDURE, Fact, Range, Record
from kypho_kg.snapshot import Snapshot
from kypho_kg.state import Resolved
from kypho_kg.store import Literal, Term, Triple
from kypho_kg.vocabulary import CASE, HAS_FINDING, HAS_LESION, KYPHO, ON_PROPERTY, OWL, RDF, RDFS, TYPE, XSD, local
from kypho_kg.vocabulary import LESION as LESION_CLASS
from kypho_kg.vocabulary import PATIENT as PATIENT_CLASS
from kypho_kg.vocabulary import PROCEDURE as PROCEDURE_CLASS

RULED_OUT = KYPHO + "ruledOut"
_INDIVIDUAL = OWL + "NamedIndividual"


def case_iri(record: Record, lesion_id: str) -> str:
    """The individual of the case with this index lesion."""
    return f"{_base(record)}/index/{_part(lesion_id)}"


def subject_iri(record: Record, subject: str) -> str:
    """The individual of the patient, of a lesion or of the procedure."""
    if subject.startswith(LESION):
        return f"{_base(record)}/lesion/{_part(subject.removeprefix(LESION))}"
    return f"{_base(record)}/{subject}"


def _base(record: Record) -> str:
    return f"urn:kypho:case/{_part(record.patient)}"


def _part(text: str) -> str:
    return quote(text, safe="")


def case_axioms(snapshot: Snapshot, lesion_id: str, in_session: bool) -> list[Triple]:
    """The case of one index lesion as OWL, in a fixed order.

    :param lesion_id: the index lesion, which the record must hold.
    :param in_session: whether the proposed procedure treats it; else the case has no link to a procedure.
    """
    return _Exporter(snapshot, lesion_id).run(in_session)


@dataclass(slots=True)
class Axioms:
    """Collects triples, with blank nodes that are the same in every run."""

    stem: str
    triples: list[Triple] = field(default_factory=list)
    _count: int = 0

    def add(self, subject: str, predicate: str, value: Term) -> None:
        """Add one triple."""
        self.triples.append((subject, predicate, value))

    def node(self, type_: str, *rows: tuple[str, Term]) -> str:
        """A new blank node of a type."""
        self._count += 1
        node = f"_:{self.stem}n{self._count}"
        for predicate, value in ((TYPE, type_), *rows) if type_ else rows:
            self.add(node, predicate, value)
        return node

    def items(self, members: Iterable[Term]) -> str:
        """An RDF list."""
        head: str = RDF + "nil"
        for member in reversed(tuple(members)):
            head = self.node("", (RDF + "first", member), (RDF + "rest", head))
        return head

    def restriction(self, prop: str, construct: str, value: Term) -> str:
        """``prop some filler`` or ``prop value individual``."""
        return self.node(OWL + "Restriction", (ON_PROPERTY, prop), (OWL + construct, value))

    def complement(self, cls: str) -> str:
        """Everything outside a class."""
        return self.node(OWL + "Class", (OWL + "complementOf", cls))

    def one_of(self, individuals: Iterable[str]) -> str:
        """The class of the listed individuals."""
        return self.node(OWL + "Class", (OWL + "oneOf", self.items(sorted(individuals))))

    def decimals(self, values: Range) -> str:
        """The data range of an interval."""
        facets = []
        for bound, is_open, name in ((values.low, values.low_open, "min"), (values.high, values.high_open, "max")):
            if bound is not None:
                facet = XSD + name + ("Exclusive" if is_open else "Inclusive")
                facets.append(self.node("", (facet, decimal_literal(bound))))
        if not facets:
            return XSD + "decimal"
        rows = ((OWL + "onDatatype", XSD + "decimal"), (OWL + "withRestrictions", self.items(facets)))
        return self.node(RDFS + "Datatype", *rows)


def decimal_literal(value: Decimal) -> Literal:
    """A number as ``xsd:decimal``, never with an exponent."""
    return Literal(f"{value:f}", XSD + "decimal")


class _Exporter:
    def __init__(self, snapshot: Snapshot, lesion_id: str) -> None:
        self.snapshot = snapshot
        self.record = snapshot.record
        self.lesion = lesion_id
        name = case_iri(self.record, lesion_id)
        self.axioms = Axioms("case" + hashlib.sha256(name.encode()).hexdigest()[:12])
        self.individuals: list[str] = []

    def run(self, in_session: bool) -> list[Triple]:
        add = self.axioms.add
        case = self._individual(case_iri(self.record, self.lesion), CASE)
        patient = self._individual(subject_iri(self.record, PATIENT), PATIENT_CLASS)
        add(case, KYPHO + "concernsPatient", patient)
        lesions = self.snapshot.subjects()[1:]
        for subject in lesions:
            add(patient, HAS_LESION, self._individual(subject_iri(self.record, subject), LESION_CLASS))
        add(case, KYPHO + "indexLesion", subject_iri(self.record, LESION + self.lesion))
        subjects = [(PATIENT, PATIENT_CLASS), *((s, LESION_CLASS) for s in lesions)]
        if in_session:
            procedure = self._individual(subject_iri(self.record, PROCEDURE), PROCEDURE_CLASS)
            add(case, KYPHO + "forProcedure", procedure)
            subjects.append((PROCEDURE, PROCEDURE_CLASS))
        for subject, bearer in subjects:
            self._findings(subject)
            for feature, state in self._states(subject, bearer):
                self._state(subject, feature, state)
        self.axioms.node(OWL + "AllDifferent", (OWL + "distinctMembers", self.axioms.items(self.individuals)))
        return self.axioms.triples

    def _individual(self, iri: str, cls: str) -> str:
        self.axioms.add(iri, TYPE, _INDIVIDUAL)
        self.axioms.add(iri, TYPE, cls)
        self.individuals.append(iri)
        return iri

    def _states(self, subject: str, bearer: str) -> Iterator[tuple[Feature, Resolved]]:
        """What is known of the subject's own features; a value of another bearer's is attributed to nobody."""
        rows = {iri: state for (owner, iri), state in self.snapshot.values.items() if owner == subject}
        for iri, state in sorted(rows.items(), key=lambda row: row[0]):
            feature = self.snapshot.knowledge.features[iri]
            if feature.bearer == bearer and feature.kind is not None:
                yield feature, state

    def _findings(self, subject: str) -> None:
        axioms, iri = self.axioms, subject_iri(self.record, subject)
        for cls in _classes(self.snapshot.present.get(subject, ())):
            axioms.add(iri, HAS_FINDING, self._individual(f"{iri}/finding/{local(cls)}", cls))
        for cls in _classes(self.snapshot.absent.get(subject, ())):
            axioms.add(iri, TYPE, axioms.complement(axioms.restriction(HAS_FINDING, "someValuesFrom", cls)))
            axioms.add(iri, RULED_OUT, cls)

    def _state(self, subject: str, feature: Feature, state: Resolved) -> None:
        axioms, iri, value = self.axioms, subject_iri(self.record, subject), state.value
        construct = "someValuesFrom" if feature.kind is Op.CATEGORY else "hasValue"
        if feature.kind is Op.CATEGORY and isinstance(value, str):
            axioms.add(iri, feature.iri, self._individual(f"{iri}/{feature.name}", value))
        elif isinstance(value, frozenset) and len(value) == 1:
            axioms.add(iri, feature.iri, next(iter(value)))
        elif isinstance(value, frozenset) and value:
            axioms.add(iri, TYPE, axioms.restriction(feature.iri, "someValuesFrom", axioms.one_of(value)))
        elif isinstance(value, Range) and value.exact is not None:
            axioms.add(iri, feature.iri, decimal_literal(value.exact))
        elif isinstance(value, Range):
            axioms.add(iri, TYPE, axioms.restriction(feature.iri, "someValuesFrom", axioms.decimals(value)))
        for item in sorted(state.ruled_out):
            axioms.add(iri, TYPE, axioms.complement(axioms.restriction(feature.iri, construct, item)))


def _classes(facts: Iterable[Fact]) -> list[str]:
    return sorted({fact.feature for fact in facts})
