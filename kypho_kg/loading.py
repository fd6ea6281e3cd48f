"""Loading the knowledge base: the import closure through the catalog, the profiles, hash and version."""

from __future__ import annotations

import functools
import hashlib
import xml.etree.ElementTree as ET
from pathlib import Path

from kypho_kg._resources import resource_dir
from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.knowledge import Knowledge
from kypho_kg.profile import check_axioms
from kypho_kg.scores import read_scores
from kypho_kg.store import Triple, Triples, parse_turtle
from kypho_kg.vocabulary import OWL, TYPE

CATALOG = "catalog-v001.xml"


def read_catalog(root: Path) -> dict[str, Path]:
    """Where the catalog of a folder finds each ontology.

    :raises KnowledgeBaseError: when there is no catalog, or it is no XML.
    """
    try:
        tree = ET.parse(root / CATALOG)
    except (OSError, ET.ParseError) as error:
        raise KnowledgeBaseError(f"{CATALOG}: {error}") from None
    return {e.get("name", ""): root / e.get("uri", "") for e in tree.iter() if e.tag.endswith("}uri")}


def import_closure(root: Path) -> dict[Path, list[Triple]]:
    """The files of ``kypho.ttl`` and its imports with their triples, found by the catalog and never in the network.

    :raises KnowledgeBaseError: when an import is not in the catalog or its file is missing.
    """
    entries = read_catalog(root)
    files: dict[Path, list[Triple]] = {}
    todo = [root / "kypho.ttl"]
    while todo:
        path = todo.pop()
        if path in files:
            continue
        files[path] = parse_turtle(path)
        for s, p, o in files[path]:
            if p == OWL + "imports":
                if str(o) not in entries:
                    raise KnowledgeBaseError(f"{path.name}: import {o} is not in {CATALOG} (ontology {s})")
                todo.append(entries[str(o)])
    return dict(sorted(files.items()))


def with_file(root: Path, files: dict[Path, list[Triple]], path: Path) -> dict[Path, list[Triple]]:
    """The files of a knowledge base with one more, which takes the place of the file of the same ontology.

    :raises KnowledgeBaseError: when the file is no Turtle, declares no ontology, or imports what the catalog lacks.
    """
    triples = parse_turtle(path)
    ontologies = [s for s, p, o in triples if p == TYPE and o == OWL + "Ontology"]
    if len(ontologies) != 1:
        raise KnowledgeBaseError(f"{path.name}: declares {len(ontologies)} ontologies; expected one")
    entries = read_catalog(root)
    for _, p, o in triples:
        if p == OWL + "imports" and str(o) not in entries:
            raise KnowledgeBaseError(f"{path.name}: import {o} is not in {CATALOG}")
    former = entries.get(ontologies[0])
    return {**{file: rows for file, rows in files.items() if file != former}, path: triples}


def read_knowledge(root: Path, *, instead: Path | None = None) -> Knowledge:
    """Load the knowledge base of a folder.

    :param instead: a file of one's own, which takes the place of the file of the same ontology, or comes as one more.
    :raises KnowledgeBaseError: when it is incomplete or outside its profiles; every violation is listed.
    """
    files = import_closure(root)
    if instead:
        files = with_file(root, files, instead)
    triples = Triples(t for rows in files.values() for t in rows)
    digest = hashlib.sha256()
    for path in files:
        name = path.name if path == instead else path.relative_to(root).as_posix()
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    knowledge = Knowledge(triples, triples.text("https://w3id.org/kypho", OWL + "versionInfo"), digest.hexdigest())
    check_axioms(knowledge)
    _ = knowledge.value_closures, knowledge.bridges, knowledge.policies, knowledge.guidelines, read_scores(knowledge)
    return knowledge


@functools.cache
def load_knowledge() -> Knowledge:
    """The bundled knowledge base, loaded once per process.

    :raises KnowledgeBaseError: when it is incomplete or outside its profiles.
    """
    return read_knowledge(resource_dir("ontology"))
