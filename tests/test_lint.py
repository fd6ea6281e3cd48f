"""Lint finds where the evaluation says less than the reasoner, and nothing else."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from builders import A, asked, between, fact, feature, iri, snap
from oracle import Worlds

from kypho_kg._resources import resource_dir
from kypho_kg.criteria import Criterion, Op
from kypho_kg.evaluation import Evaluator, Truth
from kypho_kg.knowledge import Knowledge
from kypho_kg.lint import Kind, gaps_of, kleene_gaps
from kypho_kg.lint import states as lint_states
from kypho_kg.quality import read_waivers
from kypho_kg.record import Fact
from kypho_kg.vocabulary import local

LINKS = {"Patient": "concernsPatient", "VertebralLesion": "indexLesion", "ProposedProcedure": "forProcedure"}


def of_case(name: str, wanted: object = None) -> Criterion:
    """An atom asked of the case."""
    link = LINKS[local(feature(name).bearer)]
    return Criterion(Op.LINK, (asked(name, wanted),), term=iri(link))


def both(*parts: Criterion) -> Criterion:
    return Criterion(Op.AND, parts)


def either(*parts: Criterion) -> Criterion:
    return Criterion(Op.OR, parts)


def no(part: Criterion) -> Criterion:
    return Criterion(Op.NOT, (part,))


H = of_case("ConservativeTreatmentFailed")
F = of_case("DiagnosedOsteoporosis")
PAIN_5, PAIN_8 = (of_case("painNrs", between(n)) for n in (5, 8))
INPATIENT, HOME, OBSERVED = (
    of_case("hospitalStatus", v) for v in ("AdmittedInpatient", "NotHospitalised", "ObservationStay")
)
ANYWHERE = of_case("hospitalStatus", ("AdmittedInpatient", "NotHospitalised", "ObservationStay"))


def found(knowledge: Knowledge, tree: Criterion) -> list[str]:
    return [str(f.kind) for f in gaps_of(knowledge, "tree", tree)]


GAPS = {
    "an atom plain and negated": either(both(H, PAIN_8), both(no(H), PAIN_5, F)),
    "two values of a choice": either(both(INPATIENT, PAIN_8), both(HOME, PAIN_5, F)),
    "complementary ranges": either(PAIN_8, of_case("painNrs", between(high=8, high_open=True))),
    "ranges that exclude one another": both(PAIN_8, of_case("painNrs", between(high=5))),
    "a finding without its superclass": both(of_case("Myelopathy"), no(of_case("NeurologicalDeficit"))),
    "disjoint values of a category": both(
        of_case("primaryEtiology", "PrimaryOsteoporosis"), of_case("primaryEtiology", "MultipleMyeloma")
    ),
    "a finding of the lesion that the patient lacks": both(
        of_case("SpinalInstability"),
        no(Criterion(Op.LINK, (asked("SpinalInstability"),), term=iri("concernsPatient"))),
    ),
    "a band that is open and closed": either(
        Criterion(Op.OPEN, (PAIN_8, PAIN_5), name="band"), no(Criterion(Op.OPEN, (PAIN_8, PAIN_5), name="band"))
    ),
}
SOUND = {
    "the consensus added": either(both(H, PAIN_8), both(no(H), PAIN_5, F), both(PAIN_8, F)),
    "a choice with its consensus": either(
        both(INPATIENT, PAIN_8),
        both(HOME, PAIN_5, F),
        both(of_case("hospitalStatus", ("AdmittedInpatient", "NotHospitalised")), PAIN_8, F),
    ),
    "limits in one direction": either(PAIN_8, both(PAIN_5, F)),
    "a finding and its superclass": either(of_case("Myelopathy"), both(of_case("NeurologicalDeficit"), F)),
    "an open band once": both(Criterion(Op.OPEN, (PAIN_8, PAIN_5), name="band"), F),
    "at least two of three": Criterion(Op.AT_LEAST, (H, F, PAIN_8), n=2),
}


@pytest.mark.parametrize("name", GAPS)
def test_a_gap_is_found(knowledge: Knowledge, name: str) -> None:
    assert found(knowledge, GAPS[name]) == [Kind.GAP]


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_criterion_passes(knowledge: Knowledge, name: str) -> None:
    assert found(knowledge, SOUND[name]) == []


def test_the_witness_of_the_design(knowledge: Knowledge) -> None:
    (finding,) = gaps_of(knowledge, iri("Tree"), GAPS["an atom plain and negated"])
    assert str(finding) == (
        "Tree: all completions give met, the evaluation gives unknown: ConservativeTreatmentFailed unknown; "
        "painNrs >= 8 met; DiagnosedOsteoporosis met"
    )


def test_a_search_that_is_cut_off_says_so(knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lint_states, "MAX_STATES", 3)
    (finding,) = gaps_of(knowledge, iri("Tree"), GAPS["two values of a choice"])
    assert finding.kind is Kind.BOUND
    assert "not fully checked" in finding.message


def test_a_tie_by_an_axiom_is_not_searched(knowledge: Knowledge) -> None:
    (finding,) = gaps_of(knowledge, iri("Tree"), both(of_case("sex", "Male"), of_case("Pregnancy")))
    assert finding.kind is Kind.BOUND


def test_the_ontology_has_no_gap_but_those_that_are_waived(knowledge: Knowledge) -> None:
    waived = {w.subject for w in read_waivers(resource_dir("ontology") / "guidelines", ["kleene-weaker"])}
    found = {
        str(f): f.iri.removeprefix("https://w3id.org/kypho/guidelines/").partition("/")[0]
        for f in kleene_gaps(knowledge)
    }
    assert set(found.values()) == waived, found


# -- against every record over a few features


def atoms_by_feature() -> dict[str, list[Criterion]]:
    return {
        "hospitalStatus": [INPATIENT, HOME, OBSERVED, ANYWHERE],
        "painNrs": [PAIN_5, PAIN_8, of_case("painNrs", between(high=6, high_open=True))],
        "deficit": [of_case("Myelopathy"), of_case("NeurologicalDeficit")],
        "haemangioma": [
            of_case("primaryEtiology", "AggressiveHaemangioma"), of_case("primaryEtiology", "VertebralHaemangioma"),
            of_case("primaryEtiology", "GiantCellTumour"),
        ],
        "H": [H],
        "F": [F],
    }  # fmt: skip


def choice_facts() -> Iterator[list[Fact]]:
    values = ("AdmittedInpatient", "NotHospitalised", "ObservationStay")
    for size in range(4):
        for some in itertools.combinations(values, size):
            yield [fact("hospitalStatus", v, absent=True) for v in some]
            if some:
                yield [fact("hospitalStatus", some)]


def category_facts() -> Iterator[list[Fact]]:
    values = ("AggressiveHaemangioma", "VertebralHaemangioma", "GiantCellTumour", "BenignTumourEtiology")
    known = [v for v in values if iri(v) in feature("primaryEtiology").values]
    for size in range(len(known) + 1):
        for some in itertools.combinations(known, size):
            yield [fact("primaryEtiology", v, absent=True) for v in some]
    for value in known:
        yield [fact("primaryEtiology", value)]
        for out in known:
            if iri(value) not in snap().knowledge.descendants(iri(out)):
                yield [fact("primaryEtiology", value), fact("primaryEtiology", out, absent=True)]


def quantity_facts() -> Iterator[list[Fact]]:
    points = (4, 5, "5.5", 6, 7, 8, 9)
    yield []
    for low, high in itertools.combinations_with_replacement(points, 2):
        yield [fact("painNrs", between(low, high))]


def finding_facts(*names: str) -> Iterator[list[Fact]]:
    for said in itertools.product(("", "present", "absent"), repeat=len(names)):
        yield [fact(n, s) for n, s in zip(names, said, strict=True) if s]


RECORDS = {
    "hospitalStatus": list(choice_facts()),
    "painNrs": list(quantity_facts()),
    "deficit": list(finding_facts("Myelopathy", "NeurologicalDeficit")),
    "haemangioma": list(category_facts()),
    "H": list(finding_facts("ConservativeTreatmentFailed")),
    "F": list(finding_facts("DiagnosedOsteoporosis")),
}


def random_tree(rng: random.Random, atoms: list[Criterion], depth: int) -> Criterion:
    kind = rng.choice(("atom", "not", "and", "or", "and", "or", "atLeast") if depth else ("atom", "atom", "not"))
    if kind == "atom":
        return rng.choice(atoms)
    if kind == "not":
        return no(random_tree(rng, atoms, 0))
    if kind == "atLeast":
        return Criterion(Op.AT_LEAST, tuple(random_tree(rng, atoms, 0) for _ in range(3)), n=2)
    parts = tuple(random_tree(rng, atoms, depth - 1) for _ in range(rng.choice((2, 2, 3))))
    return Criterion(Op.AND if kind == "and" else Op.OR, parts)


def has_gap(tree: Criterion, features: list[str]) -> bool:
    """Whether any record over the features is settled in all completions and not by the evaluation."""
    for facts in itertools.product(*(RECORDS[f] for f in features)):
        snapshot = snap(*(f for row in facts for f in row))
        ours = Evaluator(snapshot, A, has_procedure=False).evaluate(tree).truth
        if ours is Truth.UNKNOWN and Worlds(snapshot, A, in_session=False).truth(tree) is not ours:
            return True
    return False


@pytest.mark.parametrize("batch", range(6))
def test_lint_agrees_with_every_record(knowledge: Knowledge, batch: int) -> None:
    """Random criteria over features that hang together and some that do not."""
    for seed in range(batch * 10, batch * 10 + 10):
        rng = random.Random(seed)
        tied = rng.sample(("hospitalStatus", "painNrs", "deficit", "haemangioma"), rng.choice((1, 1, 2)))
        features = [*tied, "H"] if len(tied) == 2 else [*tied, "H", "F"]
        tree = random_tree(rng, [a for f in features for a in atoms_by_feature()[f]], rng.choice((2, 3)))
        assert (found(knowledge, tree) == [Kind.GAP]) is has_gap(tree, features), seed
