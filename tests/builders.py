"""Records in few words: features by local name, values as plain Python, dates as text."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kypho_kg.candidacy import Assessment, assess
from kypho_kg.criteria import Criterion, Op
from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.evaluation import Evaluator, Proof
from kypho_kg.inference import infer
from kypho_kg.intake import read_patient_file
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.loading import load_knowledge, read_knowledge
from kypho_kg.record import (
    LESION,
    PATIENT,
    PROCEDURE,
    Fact,
    Lesion,
    Mood,
    Polarity,
    Procedure,
    Range,
    Record,
    Source,
    Status,
    TimeSpan,
    Value,
)
from kypho_kg.snapshot import Snapshot, resolve
from kypho_kg.vocabulary import KYPHO

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
TODAY = date(2026, 3, 2)
A = LESION + "a"

_SUBJECTS = {"Patient": PATIENT, "VertebralLesion": A, "ProposedProcedure": PROCEDURE}


def iri(name: str) -> str:
    """The IRI of a term of ours."""
    return KYPHO + name


def feature(name: str) -> Feature:
    """A feature by its local name; a misspelt one fails the test."""
    return load_knowledge().by_name[name]


def span(text: str) -> TimeSpan:
    """A time as it would stand in a patient file."""
    return TimeSpan.parse(text)


def between(low: object = None, high: object = None, *, low_open: bool = False, high_open: bool = False) -> Range:
    """A range; a bound is left out where it is ``None``."""
    bounds = (None if bound is None else Decimal(str(bound)) for bound in (low, high))
    return Range(*bounds, low_open, high_open)


def fact(
    name: str,
    said: object = "present",
    time: str | None = None,
    *,
    on: str = "",
    absent: bool = False,
    mood: str = "observed",
    status: str = "confirmed",
    source: str = "note",
    **more: object,
) -> Fact:
    """A fact. ``said`` is what a patient file would say; ``absent`` rules out a value of a choice or category."""
    f = feature(name)
    polarity, value = Polarity.ABSENT if absent else Polarity.PRESENT, None
    if said == "indeterminate":
        polarity = Polarity.INDETERMINATE
    elif f.kind is Op.FINDING:
        polarity = Polarity(str(said))
    else:
        value = _value(f, said)
    return Fact(
        on or _SUBJECTS[f.bearer.removeprefix(KYPHO)],
        f.iri,
        value,
        polarity=polarity,
        mood=Mood(mood),
        time=span(time) if time else None,
        status=Status(status),
        unit=f.unit,
        source=Source(source),
        **more,
    )


def _value(f: Feature, said: object) -> Value:
    if f.kind is None:
        return span(str(said))
    if f.kind is Op.QUANTITY:
        return said if isinstance(said, Range) else Range.exactly(Decimal(str(said)))
    names = {said} if isinstance(said, str) else set(said)
    assert {iri(n) for n in names} <= f.values, f"{f.name} has no value {names}"
    return iri(str(said)) if f.kind is Op.CATEGORY else frozenset(map(iri, names))


def unknown(name: str, cause: object = None, time: str | None = None, **more: object) -> Fact:
    """A fact that says only why the feature is unknown."""
    return fact(name, "indeterminate", time, cause=cause, **more)


def session(*lesions: str, **more: object) -> Procedure:
    """One proposed session for the lesions of the given ids."""
    return Procedure(lesions=lesions or ("a",), **more)


def record(
    *facts: Fact, lesions: Iterable[str] = ("a",), procedure: Procedure | None = None, as_of: date = TODAY
) -> Record:
    """A record of one patient."""
    return Record("test", tuple(map(Lesion, lesions)), facts, procedure, as_of)


def snap(*facts: Fact, as_of: date = TODAY, **more: object) -> Snapshot:
    """The resolved snapshot of a record, without rules."""
    return resolve(record(*facts, **more), load_knowledge(), as_of)


def inferred(*facts: Fact, policies: Iterable[str] = (), bridges: bool = True, **more: object) -> Snapshot:
    """The snapshot with bridges, closures and the policies named."""
    k = load_knowledge()
    used = tuple(k.bridges.values()) if bridges else ()
    return infer(record(*facts, **more), k, TODAY, bridges=used, policies=[k.policy(p) for p in policies])


def asked(name: str, wanted: object = None) -> Criterion:
    """An atom: a finding, a quantity in a range, or a choice or category of a value."""
    f = feature(name)
    if f.kind is Op.FINDING:
        return Criterion(Op.FINDING, term=f.iri)
    if f.kind is Op.QUANTITY:
        assert isinstance(wanted, Range)
        return Criterion(Op.QUANTITY, term=f.iri, range=wanted)
    names = {wanted} if isinstance(wanted, str) else set(wanted)
    return Criterion(f.kind, term=f.iri, values=frozenset(map(iri, names)))


def ask(snapshot: Snapshot, name: str, wanted: object = None, *, on: str = "") -> Proof:
    """The proof of an atom on its own bearer, or on another subject."""
    subject = on or _SUBJECTS[feature(name).bearer.removeprefix(KYPHO)]
    return Evaluator(snapshot, A, has_procedure=True).evaluate(asked(name, wanted), subject)


def says(snapshot: Snapshot, name: str, wanted: object = None, *, on: str = "") -> str:
    """``met``, ``not met`` or the cause of the unknown."""
    proof = ask(snapshot, name, wanted, on=on)
    return str(proof.gap.cause) if proof.gap else proof.truth.words


def clause(of: Record, id_: str, lesion: str = "a", **more: object) -> Proof:
    """The proof of a clause, given as ``guideline/clause``."""
    k = load_knowledge()
    guideline, _, name = id_.partition("/")
    recommendation = k.guideline(guideline).by_clause(name)
    assert recommendation, f"no clause {id_}"
    snapshot = infer(of, k, of.as_of or TODAY, bridges=more.get("bridges", k.bridges.values()))
    procedure = of.procedure
    treated = procedure is not None and (procedure.lesions is None or lesion in procedure.lesions)
    return Evaluator(snapshot, LESION + lesion, treated).evaluate(recommendation.criterion)


def clause_says(of: Record, id_: str, **more: object) -> str:
    """``met``, ``not met``, or the causes by which a clause is unknown."""
    proof = clause(of, id_, **more)
    causes = dict.fromkeys(str(leaf.gap.cause) for leaf in proof.unknown_leaves() if leaf.gap)
    return " ".join(causes) or proof.truth.words


@functools.cache
def example(path: str) -> Record:
    """A shipped example, such as ``constructed/t4-outpatient``."""
    return read_patient_file(EXAMPLES / f"{path}.yaml", load_knowledge())


def changed(of: Record, *facts: Fact, without: Iterable[str] = ()) -> Record:
    """A record in which facts replace those on the same feature, and some features are left out."""
    gone = {(f.subject, f.feature) for f in facts}
    dropped = {feature(name).iri for name in without}
    kept = tuple(f for f in of.facts if (f.subject, f.feature) not in gone and f.feature not in dropped)
    return replace(of, facts=(*kept, *facts))


def verdict(of: Record, guideline: str, lesion: str = "a", **more: object) -> Assessment:
    """The assessment of a lesion by one guideline."""
    answer = assess(of, guidelines=[guideline], validate=False, **more)
    return next(c.assessments[0] for c in answer.cases if c.lesion.id == lesion)


# -- ontologies

PREFIXES = """
PREFIX dcterms: <http://purl.org/dc/terms/>
PREFIX kypho: <https://w3id.org/kypho#>
PREFIX obo: <http://purl.obolibrary.org/obo/>
PREFIX owl: <http://www.w3.org/2002/07/owl#>
PREFIX rdf: <http://www.w3.org/1999/02/22-rdf-syntax-ns#>
PREFIX rdfs: <http://www.w3.org/2000/01/rdf-schema#>
PREFIX seed-research: <https://w3id.org/kypho/guidelines/seed-research/>
PREFIX skos: <http://www.w3.org/2004/02/skos/core#>
PREFIX xsd: <http://www.w3.org/2001/XMLSchema#>
"""


def ontology_with(folder: Path, turtle: str = "", file: str = "modules/assumption.ttl") -> Path:
    """A copy of the ontology with some triples more; returns its root."""
    root = folder / "ontology"
    shutil.copytree(ROOT / "ontology", root)
    with (root / file).open("a", encoding="utf-8") as out:
        out.write(PREFIXES + turtle)
    return root


def knowledge_with(folder: Path, turtle: str = "", file: str = "modules/assumption.ttl") -> Knowledge:
    """The knowledge base with some triples more."""
    return read_knowledge(ontology_with(folder, turtle, file))


def refusals(folder: Path, turtle: str = "", file: str = "modules/assumption.ttl") -> str:
    """Why the ontology with these triples is refused, all of it."""
    with pytest.raises(KnowledgeBaseError) as refused:
        knowledge_with(folder, turtle, file)
    return "\n".join(refused.value.violations)


TEST_CLAUSE = """
seed-research:guideline kypho:hasRecommendation seed-research:TEST .
seed-research:TEST a owl:NamedIndividual , kypho:Recommendation ;
    skos:notation "seed-research/TEST" ; kypho:orderNumber 99 ; kypho:effect kypho:Advises ;
    kypho:condition seed-research:TestCondition ; kypho:mark kypho:ReadAtSource ;
    dcterms:bibliographicCitation "a test" .
seed-research:TestCondition a owl:Class .
"""


def defined_as(expression: str) -> str:
    """A clause ``seed-research/TEST`` whose condition is the class expression."""
    return f"{TEST_CLAUSE} seed-research:TestCondition owl:equivalentClass {expression} ."


def every(step: int, items: Iterable[Any]) -> list[Any]:
    """Parameters of a test of which each so-many-th is run always, and the others by ``make test-slow``."""
    return [x if i % step == 0 else pytest.param(x, marks=pytest.mark.slow) for i, x in enumerate(items)]
