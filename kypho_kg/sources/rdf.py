"""Records written with our terms as RDF: Turtle, TriG, N-Triples, N-Quads, RDF/XML and JSON-LD (docs/rdf.md).

Only what is asserted is read. Nothing is fetched: no remote context, no entity, no import.
"""

from __future__ import annotations

import gzip
import logging
import re
import threading
import warnings
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from kypho_kg import record as r
from kypho_kg import vocabulary as v
from kypho_kg.context import check_xml, local_document, refuse
from kypho_kg.criteria import Op
from kypho_kg.errors import InputError
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.record import LESION, PATIENT, PROCEDURE, Fact, Polarity, Range, Source
from kypho_kg.sources.fact_reader import nearest
from kypho_kg.sources.rdf_terms import (
    CAUSE,
    MOOD,
    POLARITY,
    STATUS,
    TermError,
    day,
    number,
    shown,
    state_code,
    text_of,
    time_span,
    yes_or_no,
)  # fmt: skip
from kypho_kg.store import Literal, Term, Triple, Triples
from kypho_kg.vocabulary import KYPHO, XSD, local

MAX_BYTES: Final = 256 * 1024 * 1024
MAX_DEPTH: Final = 100
FORMATS: Final = {".ttl": "turtle", ".trig": "trig", ".nt": "nt", ".nq": "nquads", ".rdf": "xml", ".owl": "xml",
                  ".jsonld": "json-ld"}  # fmt: skip

_T = TypeVar("_T")
_LOCK = threading.Lock()
_TRUE = ("true", "1")
_CITATION = v.DCTERMS + "bibliographicCitation"
_PASSED = {v.TYPE, v.LABEL, _CITATION}
"""Known without being in the ontology; those of PROV too."""
_OURS = re.compile(r"urn:kypho:patient:[^/#]+")
_NUMBERED = re.compile(r"(.*?)(\d{1,18})", re.ASCII | re.DOTALL)
_BOUNDS = ("statedValue", "rangeLow", "rangeHigh", "rangeLowExcluded", "rangeHighExcluded")
_VALUE_FORMS = frozenset(KYPHO + name for name in (*_BOUNDS, "recordedClass"))
_FORMS = {Op.QUANTITY: _BOUNDS, Op.CATEGORY: ("recordedClass",), None: ("statedValue",)}


def read_rdf(path: Path, knowledge: Knowledge, report: IntakeReport, *, limit: int = MAX_BYTES) -> Iterator[r.Record]:
    """Read the records of one file, one for each patient; what is malformed is noted in the report and left out.

    :param limit: the most bytes that are read, unpacked ones included.
    """
    try:
        triples = _asserted(path, knowledge, report, limit)
    except InputError as error:
        report.rejected.extend(error.problems)
        return
    report.saw("triples", len(triples))
    yield from RecordReader(path.name, knowledge, report, triples).records()


def _asserted(path: Path, knowledge: Knowledge, report: IntakeReport, limit: int) -> list[Triple]:
    """The triples of the default graph and of the asserted ones, sorted."""
    file, name, packed = path.name, path.name.lower().removesuffix(".gz"), path.name.lower().endswith(".gz")
    form = FORMATS.get(Path(name).suffix)
    if form is None:
        refuse(file, "the name tells no RDF syntax", f"one of {', '.join(FORMATS)}, each also with .gz")
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            data = stream.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        refuse(file, f"cannot be read: {getattr(error, 'strerror', None) or 'it is no whole gzip file'}")
    if len(data) > limit:
        refuse(file, "the file is too large", f"at most {limit:,} bytes{' when unpacked' if packed else ''}")
    if form == "json-ld":
        data = local_document(file, data, knowledge, MAX_DEPTH)
    elif form == "xml":
        check_xml(file, data, MAX_DEPTH)
    graphs = _parsed(file, data, form)
    found = graphs.pop("", set())
    why = "records stand in no graph or in an asserted one; inferred and judged graphs follow from it"
    for graph, rows in graphs.items():
        if (kind := v.graph_kind(graph)) == "asserted":
            found |= rows
        else:
            report.left(f"{kind} graph" if kind else "another named graph", why)
    return sorted(found, key=repr)


def _parsed(file: str, data: bytes, form: str) -> dict[str, set[Triple]]:
    """The triples of each graph, literals as they stand; the default graph has no name."""
    import rdflib
    from rdflib.graph import DATASET_DEFAULT_GRAPH_ID

    def plain(term: Any) -> Term:
        if isinstance(term, rdflib.Literal):
            return Literal(str(term), str(term.datatype or XSD + "string"), term.language or "")
        return f"_:{term}" if isinstance(term, rdflib.BNode) else str(term)

    graphs: dict[str, set[Triple]] = defaultdict(set)
    logger, level, switch = logging.getLogger("rdflib"), logging.getLogger("rdflib").level, rdflib.NORMALIZE_LITERALS
    with _LOCK, warnings.catch_warnings():  # rdflib has these switches for the whole program only
        warnings.simplefilter("ignore")
        try:
            rdflib.NORMALIZE_LITERALS = False
            logger.setLevel(logging.CRITICAL + 1)
            dataset = rdflib.Dataset()
            dataset.parse(data=data, format=form, publicID="http://file.invalid/")
            for s, p, o, g in dataset.quads():
                graphs["" if g in (None, DATASET_DEFAULT_GRAPH_ID) else str(g)].add((str(plain(s)), str(p), plain(o)))
        except Exception as error:  # its own exceptions, pyparsing's, and whatever its code runs into
            line = re.search(r"at line (\d+) of|:(\d+):\d+:", str(error))
            why = re.search(r"Bad syntax \(([^\n]*?)\) at \^", str(error))
            deep = isinstance(error, RecursionError)
            what = "nested too deep" if deep else f"not valid {form}" + (f": {why[1]}" if why else "")
            expected = "fewer nodes within nodes" if deep else "the syntax that the ending of its name says, in UTF-8"
            refuse(f"{file}:{line[1] or line[2]}" if line else file, what, expected)
        finally:
            rdflib.NORMALIZE_LITERALS = switch
            logger.setLevel(level)
    return graphs


class RecordReader:
    """Reads the records of one file's triples."""

    def __init__(self, file: str, knowledge: Knowledge, report: IntakeReport, triples: Iterable[Triple]) -> None:
        self.file, self.k, self.report = file, knowledge, report
        self.t = Triples(triples)
        self.about: dict[str, tuple[str, str]] = {}
        """Patient and subject that a node stands for."""
        self.nodes: dict[str, dict[str, str]] = defaultdict(dict)
        named = {*self.t.subjects(v.TYPE, v.PATIENT), *(m[0] for s, _, _ in self.t if (m := _OURS.match(s)))}
        self.numbers = {iri: f"patient {n}" for n, iri in enumerate(sorted(named), start=1)}

    def records(self) -> Iterator[r.Record]:
        """One record for each patient."""
        facts: dict[str, list[Fact]] = {}
        for node in self._sorted(self.t.subjects(v.TYPE, v.PATIENT)):
            if self._tried(node, self._stands_for, node, PATIENT):
                facts[node] = []
        for patient in facts:
            for node in self._sorted(self.t.resources(patient, v.HAS_LESION)):
                self._tried(node, self._stands_for, patient, LESION)
            for node in self._sorted(self.t.subjects(KYPHO + "proposedFor", patient)):
                self._tried(node, self._stands_for, patient, PROCEDURE)
        stated = {s for s, p, o in self.t if p == KYPHO + "polarity" or (p, o) == (v.TYPE, KYPHO + "Fact")}
        for node in self._sorted(stated):
            if self.t.objects(node, KYPHO + "yieldedBy"):
                self.report.left("fact", "a rule yielded it")
            elif fact := self._tried(node, self._fact):
                facts[self.about[self.t.resources(node, KYPHO + "aboutSubject")[0]][0]].append(fact)
                self.report.took("fact", local(fact.feature), local(fact.feature))
        unknown = {p for _, p, _ in self.t if not p.startswith(v.PROV) and not self.k.triples.predicates(p)}
        for predicate in sorted(unknown - _PASSED):
            self.report.passed("property", predicate)
        for node, rows in facts.items():
            self.report.records += 1
            yield self._record(node, tuple(rows))

    def _sorted(self, nodes: Iterable[str]) -> list[str]:
        """By the number at the end of the name; nodes without a name by what they say."""

        def order(node: str) -> tuple[object, ...]:
            if node.startswith("_:"):
                said = ((p, repr(o)) for p in self.t.predicates(node) for o in self.t.objects(node, p))
                return 1, repr(sorted(x for x in said if not x[1].startswith("'_:"))), 0
            match = _NUMBERED.fullmatch(node)
            return (0, match[1], int(match[2])) if match else (0, node, -1)

        return sorted(nodes, key=order)

    def _tried(self, node: str, read: Callable[..., _T], *args: Any) -> _T | None:
        try:
            return read(node, *args)
        except TermError as error:
            self.report.reject(f"{self.file}, {self._told(shown(node))}", *map(self._told, error.args))
            return None

    def _told(self, text: str) -> str:
        """A message in which patients have numbers: the name of a node may hold the id of a patient."""
        for iri in sorted(self.numbers, key=len, reverse=True):
            text = re.sub(re.escape(iri) + r"(?![\w.%~-])", self.numbers[iri], text)
        return text

    def _one(self, node: str, name: str, read: Callable[[Term], _T], *, needed: bool = False) -> _T | None:
        found = self.t.objects(node, KYPHO + name)
        if len(found) > 1 or (needed and not found):
            raise TermError(f"{name} is {', '.join(map(shown, found)) or 'missing'}", f"one {name}")
        try:
            return read(found[0]) if found else None
        except TermError as error:
            raise TermError(f"{name} is {error.args[0]}", *error.args[1:]) from error

    def _needed(self, node: str, name: str, read: Callable[[Term], _T]) -> _T:
        value = self._one(node, name, read, needed=True)
        assert value is not None
        return value

    def _said(self, node: str, name: str) -> str:
        return self._one(node, name, text_of) or ""

    def _stands_for(self, node: str, patient: str, subject: str) -> str:
        """Note it; of a patient and a lesion, with the id, which the subject then lacks."""
        if subject != PROCEDURE:
            id_ = self._needed(node, "lesionId" if subject == LESION else "patientId", text_of)
            subject += id_ if subject == LESION else ""
        if node in self.about or subject in self.nodes[patient]:
            raise TermError(f"{subject} of a patient stands twice", "one node for it, and one patient for the node")
        self.about[node] = patient, subject
        self.nodes[patient][subject] = node
        return subject

    # -- facts

    def _fact(self, node: str) -> Fact:
        about = self._needed(node, "aboutSubject", str)
        if about not in self.about:
            expected = "the patient, a lesion or the proposed procedure of a record in the file"
            raise TermError(f"aboutSubject is {shown(about)}", expected)
        subject = self.about[about][1]
        feature = self._needed(node, "feature", self._feature)
        bearers = {PATIENT: (v.PATIENT, v.LESION), PROCEDURE: (v.PROCEDURE,)}.get(subject, (v.LESION,))
        if feature.bearer not in bearers:
            raise TermError(f"{feature.name} of a {subject.partition(':')[0]}", f"of a {local(feature.bearer)}")
        polarity = self._needed(node, "polarity", POLARITY)
        value, unit = self._value(node, feature), self._said(node, "statedUnit")
        if feature.kind is not Op.FINDING and value is None and polarity is not Polarity.INDETERMINATE:
            raise TermError(f"{feature.name} has no value", "a value, or kypho:IndeterminatePolarity")
        if feature.kind in (Op.QUANTITY, None) and polarity is Polarity.ABSENT:
            raise TermError(f"{feature.name} is absent", "a value that it has, or kypho:IndeterminatePolarity")
        if value is not None and unit not in ("", feature.unit):
            raise TermError(f"unit {unit!r} of {feature.name}", f"the value in {feature.unit or 'no unit'}")
        first, last = self._one(node, "recordedFrom", day), self._one(node, "recordedUntil", day)
        if (first is None) is not (last is None) or (first and last and first > last):
            raise TermError(f"recordedFrom {first} and recordedUntil {last}", "both or neither, the earlier one first")
        reason, words, invalid = (self._said(node, name) for name in ("reason", "statedWords", "nonConformingTo"))
        mood, status = self._needed(node, "mood", MOOD), self._needed(node, "verificationStatus", STATUS)
        time = time_span(filter(None, (first, last)), self._one(node, "statedTime", text_of))
        cause, over = self._one(node, "causeOfIndeterminacy", CAUSE), self._source(node, "overriddenBy")
        source = self._source(node, "hasSource") or Source("")
        what = subject, feature.iri, value, polarity, mood
        return Fact(*what, time, status, cause, reason, words, unit, source, over, invalid)

    def _feature(self, term: Term) -> Feature:
        if isinstance(term, Literal) or term not in self.k.features:
            near = nearest(shown(term), self.k.by_name)
            raise TermError(shown(term), near or "a feature of the ontology (kypho-kg query features)")
        return self.k.features[term]

    def _source(self, node: str, link: str) -> Source | None:
        source = self._one(node, link, str)
        if source and KYPHO + "RecordSource" not in self.t.resources(source, v.TYPE):
            raise TermError(f"{link} is no source", "a kypho:RecordSource in the file")
        names = ("origin", "sourceDocument", "sourceDate", "sourceAuthor", "quote")
        return Source(*(self._said(source, name) for name in names)) if source else None

    def _value(self, node: str, feature: Feature) -> r.Value:
        """The value in the form of the feature's kind; any other form is refused."""
        own, forms = self.t.objects(node, feature.iri), {KYPHO + n for n in _FORMS.get(feature.kind, ())}
        right = forms if feature.kind in (Op.FINDING, Op.CATEGORY) else {feature.iri, *forms}
        said = {p for p in self.t.predicates(node) if p in self.k.features or p in _VALUE_FORMS}
        if wrong := ", ".join(sorted(map(local, said - right))):
            raise TermError(f"{wrong} in a fact of {feature.name}", ", ".join(sorted(map(local, right))) or "no value")
        if feature.kind is None:
            return time_span(map(day, own), self._one(node, "statedValue", text_of))
        if feature.kind is Op.QUANTITY:
            return self._range(node, feature, set(map(number, own)))
        if feature.kind is Op.CATEGORY:
            return self._one(node, "recordedClass", lambda term: self._known(term, feature))
        return frozenset(self._known(term, feature) for term in own) or None

    def _known(self, term: Term, feature: Feature) -> str:
        if isinstance(term, Literal) or term not in feature.values:
            known = sorted(map(local, feature.values))
            raise TermError(f"{feature.name} is {shown(term)}", nearest(shown(term), known) or ", ".join(known))
        return term

    def _range(self, node: str, feature: Feature, numbers: set[Decimal]) -> Range | None:
        text = self._said(node, "statedValue")
        low, high = (self._one(node, n, number) for n in _BOUNDS[1:3])
        low_open, high_open = (self._one(node, n, yes_or_no) in _TRUE for n in _BOUNDS[3:])
        if low is None and high is None:
            if text not in ("", "any") or low_open or high_open or len(numbers) > 1 or (text and numbers):
                raise TermError(f"{feature.name} has {len(numbers)} numbers and no range", "one number, or a range")
            return Range(None, None) if text else Range.exactly(numbers.pop()) if numbers else None
        found = Range(low, high, low_open, high_open)
        if not found.intersection(found) or numbers - {low, high}:
            raise TermError(f"{feature.name} ranges from {low} to {high}", "the smaller number first, and no others")
        return found

    # -- records

    def _record(self, patient: str, facts: tuple[Fact, ...]) -> r.Record:
        """The record of a patient: lesions in the order in which the facts name them, texts sorted."""
        nodes = self._sorted(self.t.subjects(KYPHO + "recordOf", patient))
        named = dict.fromkeys((*(f.subject for f in facts), *sorted(self.nodes[patient])))
        lesions = [s.removeprefix(LESION) for s in named if s.startswith(LESION)]
        files, notes, mappings, citations = (
            tuple(sorted({t for n in nodes for t in self.t.texts(n, name)}))
            for name in (KYPHO + "recordFile", KYPHO + "recordNote", KYPHO + "mappingsSha256", _CITATION)
        )
        as_of = [self._tried(n, self._one, "asOf", day) for n in nodes]
        constructed = any(self._tried(n, self._one, "constructed", yes_or_no) in _TRUE for n in nodes)
        things = tuple(map(r.Lesion, lesions)), facts, self._procedure(patient, lesions)
        first = next(filter(None, as_of), None)
        id_ = self.t.text(patient, KYPHO + "patientId")
        return r.Record(id_, *things, first, files, constructed, "; ".join(citations), notes, mappings)

    def _procedure(self, patient: str, lesions: list[str]) -> r.Procedure | None:
        node = self.nodes[patient].get(PROCEDURE)
        if node is None:
            return None
        treats = self._sorted(self.t.resources(node, KYPHO + "treats"))
        found = {self._tried(n, self._treated, patient) for n in treats} - {None}
        order = (*(x for x in lesions if x in found), *sorted(x for x in found if x and x not in lesions))
        span = self._tried(node, lambda n: time_span(map(day, self.t.objects(n, KYPHO + "serviceDate")), None))
        return r.Procedure(order if treats else None, span, self._tried(node, self._one, "stateCode", state_code))

    def _treated(self, node: str, patient: str) -> str:
        """The id of a lesion that is to be treated; one that the record does not list is known by its name only."""
        owner, subject = self.about.get(node, ("", ""))
        if owner == patient and subject.startswith(LESION):
            return subject.removeprefix(LESION)
        if owner or not node.startswith(f"{patient}/lesion/"):
            raise TermError("a lesion to be treated that is none of the patient", "a lesion of the patient")
        return unquote(node.removeprefix(f"{patient}/lesion/"))
