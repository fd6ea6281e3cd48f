"""A case as OWL: each state of a feature in its one form, nothing but the state, the same in every run."""

from __future__ import annotations

import pytest
from builders import PATIENT, PROCEDURE, A, between, fact, inferred, iri, session, snap, unknown

from kypho_kg.owl_export import case_axioms, case_iri, subject_iri
from kypho_kg.record import LESION
from kypho_kg.snapshot import Snapshot
from kypho_kg.store import Literal, Triples
from kypho_kg.vocabulary import CASE, HAS_FINDING, HAS_LESION, ON_PROPERTY, OWL, RDF, RDFS, TYPE, XSD


def axioms(snapshot: Snapshot, *, in_session: bool = False, lesion: str = "a") -> Triples:
    return Triples(case_axioms(snapshot, lesion, in_session))


def name(snapshot: Snapshot, subject: str = A) -> str:
    return subject_iri(snapshot.record, subject)


def written(t: Triples, node: str) -> str:
    """A class expression in one line."""
    if not node.startswith("_:"):
        return node.rsplit("#", 1)[-1]
    inner = t.resource(node, OWL + "complementOf")
    if inner:
        return f"not ({written(t, inner)})"
    head = t.resource(node, OWL + "oneOf")
    if head:
        return "{" + ", ".join(written(t, str(o)) for o in t.items(head)) + "}"
    facets = t.resource(node, OWL + "withRestrictions")
    if facets:
        assert t.resource(node, OWL + "onDatatype") == XSD + "decimal"
        rows = [(p.removeprefix(XSD), t.text(str(f), p)) for f in t.items(facets) for p in t.predicates(str(f))]
        return "[" + ", ".join(f"{p} {v}" for p, v in rows) + "]"
    for word, construct in (("some", "someValuesFrom"), ("value", "hasValue")):
        filler = t.resource(node, OWL + construct)
        if filler:
            return f"{written(t, t.resource(node, ON_PROPERTY) or '')} {word} {written(t, filler)}"
    raise AssertionError(node)


def classes(snapshot: Snapshot, subject: str = A) -> list[str]:
    """The anonymous classes to which a subject belongs."""
    t = axioms(snapshot, in_session=True)
    return [written(t, c) for c in t.resources(name(snapshot, subject), TYPE) if c.startswith("_:")]


def test_the_links_of_a_case() -> None:
    s = snap(lesions=("a", "b"), procedure=session("a"))
    t, case = axioms(s, in_session=True), case_iri(s.record, "a")
    assert CASE in t.resources(case, TYPE)
    assert t.resources(case, iri("concernsPatient")) == (name(s, PATIENT),)
    assert t.resources(case, iri("indexLesion")) == (name(s, A),)
    assert t.resources(case, iri("forProcedure")) == (name(s, PROCEDURE),)
    assert t.resources(name(s, PATIENT), HAS_LESION) == (name(s, A), name(s, LESION + "b"))


def test_a_lesion_outside_the_session_has_no_procedure() -> None:
    s = snap(fact("technique", "BalloonKyphoplasty"), lesions=("a", "b"), procedure=session("a"))
    t = axioms(s, lesion="b")
    assert t.objects(case_iri(s.record, "b"), iri("forProcedure")) == ()
    assert t.objects(name(s, PROCEDURE), TYPE) == ()


def test_a_present_finding() -> None:
    s = snap(fact("Myelopathy"))
    t = axioms(s)
    (node,) = t.resources(name(s), HAS_FINDING)
    assert iri("Myelopathy") in t.resources(node, TYPE)


def test_an_absent_finding() -> None:
    s = snap(fact("Myelopathy", "absent"))
    assert classes(s) == ["not (hasFinding some Myelopathy)"]
    assert axioms(s).resources(name(s), iri("ruledOut")) == (iri("Myelopathy"),)


def test_a_category() -> None:
    s = snap(fact("primaryEtiology", "PrimaryOsteoporosis"))
    t = axioms(s)
    (node,) = t.resources(name(s), iri("primaryEtiology"))
    assert iri("PrimaryOsteoporosis") in t.resources(node, TYPE)


def test_a_category_ruled_out() -> None:
    s = snap(fact("primaryEtiology", "MalignantEtiology", absent=True))
    assert classes(s) == ["not (primaryEtiology some MalignantEtiology)"]


def test_a_choice() -> None:
    s = snap(fact("painTrend", "Worsening"))
    assert axioms(s).resources(name(s), iri("painTrend")) == (iri("Worsening"),)


def test_one_of_several_values() -> None:
    assert classes(snap(fact("painTrend", ("Worsening", "Stable")))) == ["painTrend some {Stable, Worsening}"]


def test_a_value_ruled_out() -> None:
    assert classes(snap(fact("painTrend", "Worsening", absent=True))) == ["not (painTrend value Worsening)"]


@pytest.mark.parametrize(("said", "text"), [("7", "7"), ("6.50", "6.50"), ("1E+1", "10"), ("0.00001", "0.00001")])
def test_a_quantity_is_an_exact_decimal(said: str, text: str) -> None:
    s = snap(fact("painNrs", said))
    assert axioms(s).objects(name(s), iri("painNrs")) == (Literal(text, XSD + "decimal"),)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (between(9, 11), "painNrs some [minInclusive 9, maxInclusive 11]"),
        (between(9, 11, low_open=True, high_open=True), "painNrs some [minExclusive 9, maxExclusive 11]"),
        (between(9), "painNrs some [minInclusive 9]"),
        (between(high=9, high_open=True), "painNrs some [maxExclusive 9]"),
    ],
)
def test_an_interval(value: object, text: str) -> None:
    assert classes(snap(fact("painNrs", value))) == [text]


def test_an_interval_without_bounds_is_still_a_value() -> None:
    s = snap(fact("painNrs", between()))
    t = axioms(s)
    (node,) = (c for c in t.resources(name(s), TYPE) if c.startswith("_:"))
    assert t.resources(node, OWL + "someValuesFrom") == (XSD + "decimal",)


def test_what_is_unknown_is_not_there() -> None:
    s = snap(unknown("painNrs"), unknown("Myelopathy"), fact("inr", 1), fact("inr", 3))
    t = axioms(s)
    assert t.objects(name(s), iri("painNrs")) == ()
    assert t.objects(name(s, PATIENT), iri("inr")) == ()
    assert t.objects(name(s), HAS_FINDING) == ()


def test_what_is_not_attributed_to_the_lesion_is_nobodys() -> None:
    s = snap(fact("painNrs", 7, on=PATIENT))
    assert not [t for t in axioms(s) if t[1] == iri("painNrs")]


def test_bridges_and_closures_are_there() -> None:
    s = inferred(fact("inr", 3), fact("sex", "Male"))
    t, patient = axioms(s), name(s, PATIENT)
    present = [c for node in t.resources(patient, HAS_FINDING) for c in t.resources(node, TYPE)]
    assert iri("UncorrectedCoagulopathy") in present
    assert "not (hasFinding some Pregnancy)" in classes(s, PATIENT)


def test_no_dates_and_no_other_literals() -> None:
    s = snap(fact("birthDate", "1950-02-03"), fact("painNrs", 7, "2026-02-01"), fact("MarrowEdemaOnMri", "present"))
    t = axioms(s)
    assert {o.datatype for _, _, o in t if isinstance(o, Literal)} == {XSD + "decimal"}
    assert "1950" not in str(list(t))


def test_all_individuals_are_declared_and_different() -> None:
    s = snap(fact("Myelopathy"), fact("primaryEtiology", "MultipleMyeloma"), procedure=session("a"))
    t = axioms(s, in_session=True)
    declared = t.subjects(TYPE, OWL + "NamedIndividual")
    (node,) = t.subjects(TYPE, OWL + "AllDifferent")
    (head,) = t.resources(node, OWL + "distinctMembers")
    assert sorted(map(str, t.items(head))) == sorted(declared)
    assert len(declared) == 6
    assert all(d.startswith("urn:kypho:case/test/") for d in declared)


def test_the_same_in_every_run_and_apart_between_cases() -> None:
    def built(lesion: str) -> list[object]:
        s = snap(fact("Myelopathy"), fact("painNrs", between(4, 6)), lesions=("a", "b"))
        return list(case_axioms(s, lesion, False))

    assert built("a") == built("a")
    nodes = [{x for t in built(lesion) for x in t if str(x).startswith("_:")} for lesion in "ab"]
    assert nodes[0].isdisjoint(nodes[1])


def test_ids_are_quoted() -> None:
    s = snap(lesions=("L 1/2", "patient"))
    assert case_iri(s.record, "L 1/2") == "urn:kypho:case/test/index/L%201%2F2"
    assert subject_iri(s.record, LESION + "patient") != subject_iri(s.record, PATIENT)


def test_only_what_the_axiom_profile_knows(knowledge: object) -> None:
    s = snap(fact("Myelopathy"), fact("painTrend", "Stable", absent=True), fact("painNrs", between(4, 6)))
    used = {p for _, p, _ in axioms(s) if p.startswith((OWL, RDF, RDFS))}
    assert used <= {
        TYPE, ON_PROPERTY, RDF + "first", RDF + "rest",
        *(OWL + n for n in ("complementOf", "someValuesFrom", "hasValue", "onDatatype", "withRestrictions",
                            "distinctMembers", "oneOf")),
    }  # fmt: skip
