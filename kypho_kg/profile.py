"""The axiom profile: which axioms the ontology may contain, so that every engine sees the same.

Besides definitions: subclass and disjointness between named classes, functionality, ranges, all-different, one role
chain, and closures ``choice value x SubClassOf not (hasFinding some C)``. No covering, domain, other property
hierarchy or chain, inverse, or existential on a primitive class (design: section 2).
"""

from __future__ import annotations

from collections.abc import Iterator

from kypho_kg.criteria import Op
from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.vocabulary import (
    EQUIVALENT,
    HAS_FINDING,
    HAS_LESION,
    KYPHO,
    LABEL,
    LESION,
    ON_PROPERTY,
    OWL,
    PATIENT,
    PROCEDURE,
    RDFS,
    SUBCLASS,
    TYPE,
    XSD,
    local,
)

_OWL_PREDICATES = frozenset(
    OWL + n
    for n in (
        "imports versionIRI versionInfo equivalentClass intersectionOf unionOf complementOf oneOf onProperty "
        "someValuesFrom hasValue onDatatype withRestrictions members distinctMembers disjointWith propertyChainAxiom "
        "deprecated priorVersion"
    ).split()
)
_OWL_TYPES = frozenset(
    OWL + n
    for n in (
        "Ontology Class Restriction ObjectProperty DatatypeProperty AnnotationProperty FunctionalProperty "
        "NamedIndividual AllDisjointClasses AllDifferent"
    ).split()
)
_BEARERS = frozenset({LESION, PATIENT, PROCEDURE})
_CHANGEABILITIES = frozenset({"CanChange", "OnlyIncreases", "CannotChange"})
_RULES = frozenset({"Latest", "HighestInWindow", "LowestInWindow"})
_DERIVATIONS = frozenset(
    {"", "DifferenceOfDates", "CountOfLesions", "CountOfSessionLevels", "TrendOfSeries", "ScoreTotal"}
)


def check_axioms(knowledge: Knowledge) -> None:
    """Check a knowledge base against the axiom profile.

    :raises KnowledgeBaseError: with every violation, each naming its axiom.
    """
    violations = [*_axioms(knowledge), *_cycles(knowledge)]
    for feature in knowledge.features.values():
        violations.extend(_feature(knowledge, feature))
    if violations:
        raise KnowledgeBaseError(violations)


def _axioms(k: Knowledge) -> Iterator[str]:
    t = k.triples
    chain = (HAS_LESION, HAS_FINDING)
    for s, p, o in t:
        if p.startswith(OWL) and p not in _OWL_PREDICATES:
            yield f"{_owner(k, s)} {p.removeprefix(OWL)} {local(str(o))}: outside the axiom profile"
        elif p == TYPE and isinstance(o, str) and o.startswith(OWL) and o not in _OWL_TYPES:
            yield f"{_owner(k, s)} is declared {o.removeprefix(OWL)}: outside the axiom profile"
        elif p in {RDFS + "domain", RDFS + "subPropertyOf"} and not _is_annotation(k, s):
            yield f"{_owner(k, s)} {p.removeprefix(RDFS)} {local(str(o))}: outside the axiom profile"
        elif p == OWL + "propertyChainAxiom" and (s != HAS_FINDING or t.items(str(o)) != chain):
            yield f"{_owner(k, s)}: the only role chain is hasLesion o hasFinding -> hasFinding"
        elif p == SUBCLASS:
            yield from _subclass(k, s, str(o))
        elif p == EQUIVALENT and not s.startswith("_:"):
            yield from _definition(k, s, str(o))


def _owner(k: Knowledge, node: str) -> str:
    """The named term whose axioms hold a blank node."""
    owner = k.triples.owner(node)
    return "an axiom without a name" if owner.startswith("_:") else local(owner)


def _is_annotation(k: Knowledge, iri: str) -> bool:
    return OWL + "AnnotationProperty" in k.triples.resources(iri, TYPE)


def _subclass(k: Knowledge, lower: str, upper: str) -> Iterator[str]:
    if lower.startswith("_:"):
        if not _is_value_closure(k, lower, upper):
            yield (
                "a general axiom that is no closure 'choice value x SubClassOf not (hasFinding some C)': "
                f"{local(k.triples.resource(lower, ON_PROPERTY) or lower)} SubClassOf {local(upper)}"
            )
    elif upper.startswith("_:"):
        prop = k.triples.resource(upper, ON_PROPERTY)
        what = f"{local(prop)} restriction" if prop else "anonymous class"
        yield f"{local(lower)} SubClassOf {what}: an existential or covering on a class is outside the axiom profile"


def _definition(k: Knowledge, cls: str, definition: str) -> Iterator[str]:
    """A definition must imply what is asserted above the class; a superclass that it does not name would say more."""
    if k.subsumes(KYPHO + "Finding", cls):
        yield f"{local(cls)}: a finding is primitive and has no definition"
    head = k.triples.resource(definition, OWL + "intersectionOf")
    conjuncts = k.triples.items(head) if head else ()
    for bearer in _BEARERS & k.ancestors(cls):
        if bearer not in conjuncts:
            yield f"{local(cls)}: lies under {local(bearer)}, which its definition must name as a conjunct"


def _is_value_closure(k: Knowledge, lower: str, upper: str) -> bool:
    t = k.triples
    choice, value = t.resource(lower, ON_PROPERTY), t.resource(lower, OWL + "hasValue")
    inner = t.resource(upper, OWL + "complementOf") or ""
    finding = t.resource(inner, OWL + "someValuesFrom")
    feature = k.features.get(choice or "")
    closed = k.features.get(finding or "")
    return bool(
        feature
        and feature.kind is Op.CHOICE
        and value in feature.values
        and t.resource(inner, ON_PROPERTY) == HAS_FINDING
        and closed
        and closed.kind is Op.FINDING
        and closed.bearer == feature.bearer
    )


def _cycles(k: Knowledge) -> Iterator[str]:
    """Subclass circles among named classes; they would make two names of one class."""
    t = k.triples
    state: dict[str, int] = {}

    def visit(cls: str, path: tuple[str, ...]) -> Iterator[str]:
        if state.get(cls) == 2:
            return
        if cls in path:
            yield "subclass circle: " + " -> ".join(map(local, (*path[path.index(cls) :], cls)))
            return
        for upper in t.resources(cls, SUBCLASS):
            if not upper.startswith("_:"):
                yield from visit(upper, (*path, cls))
        state[cls] = 2

    for cls in t.subjects(TYPE, OWL + "Class"):
        if not cls.startswith("_:"):
            yield from visit(cls, ())


def _feature(k: Knowledge, f: Feature) -> Iterator[str]:
    t = k.triples
    types = t.resources(f.iri, TYPE)
    functional = OWL + "FunctionalProperty" in types
    if len(t.resources(f.iri, KYPHO + "bearer")) != 1 or f.bearer not in _BEARERS:
        yield f"{f.name}: needs exactly one bearer: Patient, VertebralLesion or ProposedProcedure"
    if not t.text(f.iri, LABEL):
        yield f"{f.name}: needs a label"
    if not f.acquisition or not f.burden:
        yield f"{f.name}: needs a way of acquisition with a burden"
    if f.changes not in _CHANGEABILITIES:
        yield f"{f.name}: needs a changeability: {', '.join(sorted(_CHANGEABILITIES))}"
    if f.rule != "Latest" and f.kind is not Op.QUANTITY:
        yield f"{f.name}: the selection rule {f.rule} is for quantities"
    if f.rule not in _RULES:
        yield f"{f.name}: unknown selection rule {f.rule}"
    if f.derived_by not in _DERIVATIONS:
        yield f"{f.name}: unknown kind of derivation {f.derived_by}"
    for upper in k.ancestors(f.iri) - {f.iri}:
        # A present finding speaks for its superclass, an absent one for its subclasses: neither may outlive the other.
        wider = k.features.get(upper)
        if wider and wider.lookback != f.lookback:
            yield f"{f.name} and {wider.name}: a finding and its superclass have the same lookback"
    if f.kind in {Op.CATEGORY, Op.CHOICE, Op.QUANTITY} and not functional:
        yield f"{f.name}: a {f.kind} must be functional"
    if f.kind is Op.QUANTITY:
        if t.resources(f.iri, RDFS + "range") != (XSD + "decimal",):
            yield f"{f.name}: a quantity has the range xsd:decimal"
        if not f.unit:
            yield f"{f.name}: a quantity needs a UCUM unit"
        elif len(t.texts(f.iri, KYPHO + "ucumUnit")) > 1:
            yield f"{f.name}: a quantity has one UCUM unit; others are accepted units"
    elif f.kind is Op.CHOICE:
        if not f.values:
            yield f"{f.name}: the range of a choice is a class defined by an enumeration"
        elif not _all_different(k, f.values):
            yield f"{f.name}: its individuals are not declared all different"
    elif f.kind is Op.CATEGORY:
        yield from _tree(k, f)


def _all_different(k: Knowledge, individuals: frozenset[str]) -> bool:
    t = k.triples
    return len(individuals) == 1 or any(
        individuals <= set(t.items(head))
        for node in t.subjects(TYPE, OWL + "AllDifferent")
        for head in t.resources(node, OWL + "distinctMembers")
    )


def _tree(k: Knowledge, f: Feature) -> Iterator[str]:
    root = k.triples.resource(f.iri, KYPHO + "categoryRoot")
    if not root:
        yield f"{f.name}: a category needs a root of its tree"
        return
    for cls in f.values - {root}:
        parents = k.triples.resources(cls, SUBCLASS)
        if len(parents) != 1:
            yield f"{local(cls)}: a value of {f.name} has exactly one parent"
        for parent in parents:
            for sibling in f.values:
                if sibling > cls and parent in k.triples.resources(sibling, SUBCLASS) and not k.disjoint(cls, sibling):
                    yield f"{local(cls)} and {local(sibling)}: siblings in the tree of {f.name} must be disjoint"
