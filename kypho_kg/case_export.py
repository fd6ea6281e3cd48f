"""One case as an ontology of its own that imports the knowledge base, for Protégé and other OWL tools.

A reasoner that opens it puts the case into the conditions it meets and the eligibility classes it belongs to. What is
not met shows only by a query for the complement, and what follows from dates stands there as its result.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import quoteattr

from kypho_kg import __version__
from kypho_kg._resources import resource_dir
from kypho_kg.candidacy import Answer, CaseAnswer
from kypho_kg.errors import UsageError
from kypho_kg.loading import CATALOG, read_catalog
from kypho_kg.ontology_export import ROOT, Syntax, serialise
from kypho_kg.owl_export import case_axioms, case_iri, subject_iri
from kypho_kg.record import LESION, PATIENT, PROCEDURE
from kypho_kg.report import DISCLAIMER, level_names
from kypho_kg.store import Literal, Triple
from kypho_kg.vocabulary import DCTERMS, LABEL, OWL, TYPE

_XML = "urn:oasis:names:tc:entity:xmlns:xml:catalog"


def case_triples(answer: Answer, case: CaseAnswer) -> list[Triple]:
    """The ontology of one case: header, import, the axioms of the case and a label for each individual."""
    record, lesion = case.record, case.lesion.id
    iri = case_iri(record, lesion)
    axioms = case_axioms(case.snapshot, lesion, case.in_session)
    k = answer.knowledge
    title = f"Patient {record.patient}, {_lesion(answer, case)}, as of {answer.as_of}"
    bridged = "" if answer.bridged else " No feature counts as another (no bridges)."
    description = f"What is known of one case as of {answer.as_of}.{bridged} {DISCLAIMER}"
    versions = f"kypho-kg {__version__}, knowledge base {k.version}, sha256 {k.sha256}"
    ontology = f"{iri}/ontology"
    header: list[Triple] = [
        (ontology, TYPE, OWL + "Ontology"),
        (ontology, OWL + "versionIRI", f"{ontology}/{answer.as_of}"),
        (ontology, OWL + "imports", ROOT),
        (ontology, DCTERMS + "title", Literal(title, language="en")),
        (ontology, DCTERMS + "description", Literal(description, language="en")),
        (ontology, OWL + "versionInfo", Literal(versions)),
    ]
    return [*header, *axioms, *_labels(answer, case, axioms, title)]


def _lesion(answer: Answer, case: CaseAnswer) -> str:
    levels = "/".join(level_names(answer.knowledge, case)) or "level unknown"
    return f"lesion {case.lesion.id} ({levels})"


def _labels(answer: Answer, case: CaseAnswer, axioms: Sequence[Triple], title: str) -> Iterator[Triple]:
    """A label for each individual of the case; one of a finding or a category has the label of its class."""
    record, k = case.record, answer.knowledge
    names = {subject_iri(record, PATIENT): f"patient {record.patient}"}
    for lesion in record.lesions:
        names[subject_iri(record, LESION + lesion.id)] = _lesion(answer, replace(case, lesion=lesion))
    names[subject_iri(record, PROCEDURE)] = f"procedure proposed for patient {record.patient}"
    subjects = dict(names)
    names[case_iri(record, case.lesion.id)] = f"case: {title}"
    for iri in dict.fromkeys(s for s, p, o in axioms if p == TYPE and o == OWL + "NamedIndividual"):
        name = names.get(iri, "")
        if not name:
            owner = next(text for subject, text in subjects.items() if iri.startswith(subject + "/"))
            cls = next(o for s, p, o in axioms if s == iri and p == TYPE and o != OWL + "NamedIndividual")
            name = f"{owner}: {k.label(str(cls))}"
        yield iri, LABEL, Literal(name, language="en")


def case_text(answers: Sequence[Answer]) -> str:
    """The one case of the answers as Turtle.

    :raises UsageError: when there are none or several.
    """
    cases = [(answer, case) for answer in answers for case in answer.cases]
    if len(cases) != 1:
        found = ", ".join(f"{c.record.place} lesion {c.lesion.id}" for _, c in cases) or "a record without lesion"
        found = found if len(cases) < 6 else f"{len(cases)}"
        raise UsageError(f"--format owl prints one case, not {found}; pick one with --lesion or give a folder with -o")
    return serialise(case_triples(*cases[0]), Syntax.TURTLE)


def write_cases(answers: Sequence[Answer], folder: Path) -> list[Path]:
    """Write one file for each case, and a catalog by which Protégé and OWLAPI find the knowledge base offline.

    :returns: the files of the cases.
    :raises UsageError: without a case, and for a folder that cannot be written to or has a catalog of others.
    """
    catalog = folder / CATALOG
    paths = []
    if not any(answer.cases for answer in answers):
        raise UsageError("no case to write: a case needs a lesion")
    try:
        if catalog.exists() and f'name="{ROOT}"' not in catalog.read_text("utf-8"):
            raise UsageError(f"{catalog} is the catalog of another folder of ontologies; give a folder of its own")
        folder.mkdir(parents=True, exist_ok=True)
        for answer in answers:
            for case in answer.cases:
                path = folder / file_name(case)
                path.write_text(serialise(case_triples(answer, case), Syntax.TURTLE), "utf-8")
                paths.append(path)
        catalog.write_text(_catalog(), "utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{folder}: cannot write there: {error}") from None
    return paths


def file_name(case: CaseAnswer) -> str:
    """A file name of plain characters that no other case has; it names the source and the lesion, not the patient."""
    ids = (Path(next(iter(case.record.files), "")).stem, case.lesion.id)
    words = "-".join(re.sub(r"[^A-Za-z0-9_]+", "-", i).strip("-")[:40] for i in ids).strip("-")
    return f"{words or 'case'}-{hashlib.sha256(case_iri(case.record, case.lesion.id).encode()).hexdigest()[:8]}.ttl"


def _catalog() -> str:
    """The catalog of the installed knowledge base with full paths, and the knowledge base itself."""
    root = resource_dir("ontology").resolve()
    entries = {ROOT: root / "kypho.ttl"}
    entries |= {name: path.resolve() for name, path in read_catalog(root).items()}
    rows = [f"    <uri name={quoteattr(name)} uri={quoteattr(path.as_uri())}/>\n" for name, path in entries.items()]
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n'
        f'<catalog prefer="public" xmlns="{_XML}">\n{"".join(rows)}</catalog>\n'
    )
