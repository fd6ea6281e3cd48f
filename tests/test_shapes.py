"""Each shape, against a valid file and invalid twins that differ from it in one triple.

``tests/data/shapes/FILE/PROPERTY-CONSTRAINT-invalid.ttl`` breaks one constraint of one property shape of
``shapes/FILE.ttl`` and holds the report that it expects. Its valid twin is ``PROPERTY-valid.ttl``, or ``valid.ttl``
where the shapes of a class share one.
"""

import functools
import re
from pathlib import Path

import pyshacl
import pytest
import rdflib
from rdflib import OWL, RDF, RDFS, SH, XSD, Graph, Literal, Namespace, URIRef

from kypho_kg import validation
from kypho_kg._resources import resource_dir
from kypho_kg.validation import KNOWLEDGE_SHAPES, RECORD_SHAPES, SHACL_TERMS, Severity

Key = tuple[str, str, str, str, str]
EX = "https://example.org/case/"
DATA = Path(__file__).parent / "data" / "shapes"
KYPHO = Namespace("https://w3id.org/kypho#")
KYPHOSH = Namespace("https://w3id.org/kypho/shapes#")
SHT = Namespace("http://www.w3.org/ns/shacl-test#")
DCTERMS_SOURCE = URIRef("http://purl.org/dc/terms/source")

INVALID = sorted(DATA.glob("*/*-invalid.ttl"))
VALID = sorted(set(DATA.glob("*/*valid.ttl")) - set(INVALID))
FILES = sorted(resource_dir("shapes").glob("*.ttl"))


def twin(invalid: Path) -> Path:
    """The valid file of an invalid one."""
    own = invalid.with_name(invalid.name.rsplit("-", 2)[0] + "-valid.ttl")
    return own if own.exists() else invalid.with_name("valid.ttl")


@functools.cache
def parse(path: Path) -> Graph:
    """Read a file as it is written; rdflib would repair an ill-formed date."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rdflib, "NORMALIZE_LITERALS", False)
        return Graph().parse(data=path.read_text("utf-8"), format="turtle", publicID="https://example.org/test")


@functools.cache
def split(path: Path) -> tuple[Graph, Graph]:
    """The data of a file, and the report that it expects."""
    data, expected = parse(path), Graph()
    for test in list(data.subjects(RDF.type, SHT.Validate)):
        expected += data.cbd(test)
    return data - expected, expected


@functools.cache
def results() -> dict[Path, set[Key]]:
    """What the shapes say of each file. All are checked in one run, each under names of its own, to save time."""
    found: dict[Path, set[Key]] = {path: set() for path in (*VALID, *INVALID)}
    own = {f"{EX}{path.parent.name}/{path.stem}/": path for path in found}
    for files, shapes in ((RECORD_SHAPES, _record_shapes()), (KNOWLEDGE_SHAPES, _knowledge_shapes())):
        data = Graph()
        for name, path in own.items():
            if f"{path.parent.name}.ttl" in files:
                for triple in split(path)[0]:
                    data.add(tuple(URIRef(t.replace(EX, name)) if t.startswith(EX) else t for t in triple))
        for focus, *rest in run(data, shapes):
            name, _, local = focus.rpartition("/")
            found[own[name + "/"]].add((EX + local, *rest))
    return found


def run(data: Graph, shapes: Graph) -> set[Key]:
    return {key(r) for r in validation._report(data, shapes, frozenset(), {}).results}


def key(r: validation.ValidationResult) -> Key:
    return r.focus_node, r.path, r.source_shape, r.component, r.severity


def _record_shapes() -> Graph:
    return validation._shapes(RECORD_SHAPES, validation._RECORD_CLASSES)


def _knowledge_shapes() -> Graph:
    return validation._shapes(KNOWLEDGE_SHAPES, validation._KNOWLEDGE_CLASSES)


@pytest.fixture(scope="module")
def shapes() -> Graph:
    return _record_shapes() + _knowledge_shapes()


@pytest.fixture(scope="module")
def ontology() -> Graph:
    graph = Graph()
    for path in sorted(resource_dir("ontology").rglob("*.ttl")):
        graph.parse(path)
    return graph


def test_count() -> None:
    assert (len(INVALID), len(VALID), len(FILES)) == (496, 87, 13)


def test_every_shapes_file_is_loaded() -> None:
    assert {p.name for p in FILES} == {*RECORD_SHAPES, *KNOWLEDGE_SHAPES}


def test_no_valid_file_is_unused() -> None:
    assert {twin(p) for p in INVALID} == set(VALID)


@pytest.mark.parametrize("path", VALID, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_valid(path: Path) -> None:
    data, expected = split(path)
    assert len(data)
    assert not len(expected)
    assert results()[path] == set()


@pytest.mark.parametrize("path", INVALID, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_invalid(path: Path) -> None:
    data, expected = split(path)
    valid, invalid = set(split(twin(path))[0]), set(data)
    assert max(len(valid - invalid), len(invalid - valid)) == 1, "twins differ in one triple: changed, added or removed"
    stated = {key(r) for r in validation._results(expected, {})}
    assert stated
    assert results()[path] == stated


def test_the_file_name_states_what_fails() -> None:
    for path in INVALID:
        prop, constraint, _ = path.stem.rsplit("-", 2)
        shapes = {(r.source_shape, r.component) for r in validation._results(split(path)[1], {})}
        assert (_shape(path.parent.name, prop), _component(constraint)) in shapes, path


def _shape(folder: str, prop: str) -> str:
    defined = {
        s for s in parse(resource_dir("shapes") / f"{folder}.ttl").subjects(RDF.type) if str(s).startswith(str(KYPHOSH))
    }
    (shape,) = {str(s) for s in defined if s == KYPHOSH[prop] or str(s).endswith(f"Shape-{prop}")}
    return shape


def _component(constraint: str) -> str:
    name = "SPARQL" if constraint == "sparql" else constraint[0].upper() + constraint[1:]
    return str(SH[f"{name}ConstraintComponent"])


def test_every_constraint_of_every_shape_has_an_invalid_twin(shapes: Graph) -> None:
    no_constraint = {SH.path, SH.property, SH.severity, SH.message, SH.targetClass, SH.targetNode, SH.targetSubjectsOf}
    stated = {
        (str(shape), _component(str(p).removeprefix(str(SH))))
        for kind in (SH.PropertyShape, SH.NodeShape)
        for shape in shapes.subjects(RDF.type, kind)
        for p in shapes.predicates(shape)
        if str(p).startswith(str(SH)) and p not in no_constraint
    }
    tried = {(r.source_shape, r.component) for p in INVALID for r in validation._results(split(p)[1], {})}
    assert stated == tried
    assert len(stated) == len(INVALID), "one twin for each constraint"


def test_every_shape_is_documented(shapes: Graph) -> None:
    for kind in (SH.PropertyShape, SH.NodeShape):
        for shape in shapes.subjects(RDF.type, kind):
            assert isinstance(shape, URIRef), "an anonymous shape cannot be cited"
            assert len(list(shapes.objects(shape, RDFS.comment))) == 1, shape
            assert len(list(shapes.objects(shape, DCTERMS_SOURCE))) == 1, shape
    for shape in shapes.subjects(RDF.type, SH.PropertyShape):
        assert len(list(shapes.objects(shape, SH.severity))) == 1, shape
        messages = list(shapes.objects(shape, SH.message))
        assert [m.language for m in messages] == ["en"], shape
        assert all(m.endswith(".") and not re.search("kypho:|kyphosh|://", m) for m in messages), shape


def test_the_names_of_property_shapes_begin_with_their_node_shape(shapes: Graph) -> None:
    nodes = set(shapes.subjects(RDF.type, SH.NodeShape))
    for shape in shapes.subjects(RDF.type, SH.PropertyShape):
        assert URIRef(shape.rpartition("-")[0]) in nodes, shape


def test_every_property_shape_of_a_class_is_listed(shapes: Graph) -> None:
    """A property shape with a target of its own is applied also if its node shape forgets it; a form would not."""
    for shape in shapes.subjects(SH.targetClass):
        if (shape, RDF.type, SH.PropertyShape) in shapes:
            assert (URIRef(shape.rpartition("-")[0]), SH.property, shape) in shapes


def test_the_whitelist_holds_the_terms_in_use(shapes: Graph) -> None:
    used = {t for triple in shapes for t in triple if isinstance(t, URIRef) and t.startswith(str(SH))}
    assert used == SHACL_TERMS


def test_every_term_is_declared(shapes: Graph, ontology: Graph) -> None:
    declared = set(ontology.subjects(RDF.type)) | set(shapes.subjects(RDF.type))
    graphs = [shapes, *(parse(p) for p in VALID), *(parse(p) for p in INVALID)]
    used = {t for g in graphs for triple in g for t in triple if isinstance(t, URIRef)}
    assert {t for t in used if t.startswith((str(KYPHO), str(KYPHOSH)))} <= declared


def test_shapes_conform_to_shacl(shapes: Graph) -> None:
    conforms, _, text = pyshacl.validate(Graph(), shacl_graph=shapes, meta_shacl=True)
    assert conforms, text


def test_every_quantity_has_bounds(shapes: Graph, ontology: Graph) -> None:
    quantities = set(ontology.subjects(KYPHO.featureKind, KYPHO.QuantityFeature))
    assert len(quantities) >= 16
    for quantity in quantities:
        (shape,) = shapes.subjects(SH.targetSubjectsOf, quantity)
        assert shapes.value(shape, SH.path) == quantity
        assert shapes.value(shape, SH.datatype) == XSD.decimal
        low, high = shapes.value(shape, SH.minInclusive), shapes.value(shape, SH.maxInclusive)
        assert isinstance(low, Literal)
        assert isinstance(high, Literal)
        graph = Graph()
        for bound in (low, high):
            graph.add((URIRef("https://example.org/case/Statement"), URIRef(quantity), bound))
        assert run(graph, shapes) == set(), f"the bounds of {quantity} belong to its range"


def test_every_date_feature_has_a_shape(shapes: Graph, ontology: Graph) -> None:
    for feature in ontology.subjects(KYPHO.featureKind, KYPHO.DateFeature):
        (shape,) = shapes.subjects(SH.targetSubjectsOf, feature)
        assert shapes.value(shape, SH.datatype) == XSD.date
        assert shapes.value(shape, SH.pattern)


def test_enumerations_are_those_of_the_ontology(shapes: Graph, ontology: Graph) -> None:
    """A new effect or status must be added to its shape too."""
    enumerations = {
        "RecommendationShape-effect": KYPHO.Effect,
        "RecommendationShape-mark": KYPHO.VerificationMark,
        "RecommendationShape-due": KYPHO.DocumentationTime,
        "GuidelineShape-layer": KYPHO.Layer,
        "FactShape-mood": KYPHO.Mood,
        "FactShape-polarity": KYPHO.Polarity,
        "FactShape-verificationStatus": KYPHO.VerificationStatus,
        "FactShape-causeOfIndeterminacy": KYPHO.CauseOfUnknown,
    }
    for name, cls in enumerations.items():
        head = shapes.value(KYPHOSH[name], SH["in"])
        assert set(shapes.items(head)) == set(ontology.subjects(RDF.type, cls)), name


def test_severities_are_known() -> None:
    assert {str(SH[s]) for s in Severity} == {str(t) for t in SHACL_TERMS & {SH.Violation, SH.Warning, SH.Info}}


def test_the_record_module_is_complete() -> None:
    module = parse(resource_dir("ontology") / "modules" / "record.ttl")
    definition = URIRef("http://purl.obolibrary.org/obo/IAO_0000115")
    source = URIRef("http://purl.obolibrary.org/obo/IAO_0000119")
    header = URIRef("https://w3id.org/kypho/modules/record")
    terms = {t for t in module.subjects(RDF.type) if isinstance(t, URIRef)} - {header}
    assert len(terms) > 50
    for term in terms:
        for p in (RDFS.label, definition, source):
            assert len(list(module.objects(term, p))) == 1, (term, p)
        assert module.value(term, RDFS.isDefinedBy) == header
    assert not list(module.subjects(RDF.type, OWL.DatatypeProperty)), "dates and texts are annotations"
