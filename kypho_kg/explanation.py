"""Why a verdict is what it is, and what is missing: read off the proofs, in deterministic words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kypho_kg.candidacy import Assessment, ClauseResult
from kypho_kg.criteria import Criterion, Op
from kypho_kg.evaluation import Proof, Truth
from kypho_kg.guidelines import ABSOLUTE, DECIDING, EXCLUDES, INDICATES, RELATIVE, REQUIRES, SCOPE
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import Cause, Fact, Polarity, Range, Value
from kypho_kg.verdicts import UNDETERMINED
from kypho_kg.vocabulary import KYPHO


def deciding(proof: Proof) -> Iterator[Proof]:
    """The leaves by which a node has the truth it has; every one of them, not the first."""
    op, truth = proof.criterion.op, proof.truth
    if not proof.children:
        yield proof
        return
    if op is Op.OPEN:
        # Strict and lenient hold the same atoms; where the band is open the lenient one shows what is at stake.
        children: Sequence[Proof] = proof.children[:1] if truth is Truth.MET else proof.children[1:]
        wanted = {c.truth for c in children}
    elif op in {Op.NOT, Op.LINK} or (op is Op.AND and truth is Truth.MET) or (op is Op.OR and truth is Truth.NOT_MET):
        children, wanted = proof.children, set(Truth)
    else:
        children, wanted = proof.children, {truth}
    for child in children:
        if child.truth in wanted:
            yield from deciding(child)


def value_words(k: Knowledge, value: Value) -> str:
    """A recorded value in words."""
    if isinstance(value, frozenset):
        return " or ".join(choice_words(k, value))
    if isinstance(value, str):
        return k.label(value)
    return "" if value is None else str(value)


def choice_words(k: Knowledge, values: frozenset[str]) -> list[str]:
    """Individuals in the order of the ontology; a long run of them as first to last."""

    def rank(iri: str) -> tuple[int, str]:
        return k.level_order(iri), k.label(iri)

    ordered = sorted(values, key=rank)
    places = [rank(v)[0] for v in ordered]
    if len(ordered) > 2 and places[0] and places == list(range(places[0], places[0] + len(places))):
        return [f"{k.label(ordered[0])} to {k.label(ordered[-1])}"]
    return [k.label(v) for v in ordered]


def asked_words(k: Knowledge, criterion: Criterion) -> str:
    """What an atom asks for, in words."""
    if criterion.range is not None:
        unit = k.features[criterion.term].unit
        return f"{criterion.range}" + ("" if unit.startswith("{") else f" {unit}")
    if criterion.op is Op.CHOICE:
        return " or ".join(choice_words(k, criterion.values))
    return " or ".join(k.label(v) for v in criterion.values)


def cause_words(k: Knowledge, proof: Proof) -> str:
    """Why a leaf is unknown, in plain words, with the reason that was recorded."""
    assert proof.gap is not None
    reason = f" ({proof.gap.reason})" if proof.gap.reason else ""
    return k.plain(KYPHO + proof.gap.cause) + reason


def fact_words(k: Knowledge, fact: Fact) -> str:
    """What a fact says, without its source."""
    if fact.polarity is Polarity.INDETERMINATE:
        return fact.words or fact.reason or "unclear"
    said = value_words(k, fact.value)
    if not said:
        name = "" if fact.rule else k.label(fact.feature) + " "
        return f"{name}{fact.polarity}"
    return said if fact.polarity is Polarity.PRESENT else f"not {said}"


def leaf_words(k: Knowledge, leaf: Proof, asked: str = "") -> str:
    """A leaf as a short phrase: feature, what is recorded, what is asked for.

    :param asked: what is asked for, where that is more than this leaf says.
    """
    c = leaf.criterion
    name = k.label(c.term)
    if c.op is Op.OPEN:
        return f"{k.plain(c.name)}: left open by the source"
    if c.op is Op.LINK:
        return f"{name}: {cause_words(k, leaf)}"
    if c.op is Op.FINDING:
        said = {Truth.MET: "present", Truth.NOT_MET: "absent"}.get(leaf.truth) or cause_words(k, leaf)
        return f"{name}: {said}"
    recorded = "; ".join(dict.fromkeys(fact_words(k, f) for f in leaf.facts))
    if leaf.truth is Truth.UNKNOWN:
        said = cause_words(k, leaf)
        return f"{name}: {recorded + ', ' if recorded else ''}{said} (asked: {asked or asked_words(k, c)})"
    return f"{name} {recorded} (asked: {asked or asked_words(k, c)})"


# -- reasons


def no_candidate_either_way(assessment: Assessment) -> bool:
    """Whether an open verdict can no longer become any kind of candidate."""
    ends = assessment.conclusion.reachable
    return assessment.verdict == UNDETERMINED and not any(v.startswith("Candidate") for v in ends)


def decisive_clauses(assessment: Assessment) -> tuple[ClauseResult, ...]:
    """The clauses that make the verdict what it is."""
    having = assessment.having
    verdict = assessment.verdict
    if verdict == "NotApplicable":
        return having(SCOPE, Truth.NOT_MET)
    if verdict == "Contraindicated":
        return having(ABSOLUTE, Truth.MET)
    if verdict == "NotIndicated":
        indications = having(INDICATES)
        none_met = indications if all(c.truth is Truth.NOT_MET for c in indications) else ()
        return (*having(EXCLUDES, Truth.MET), *having(REQUIRES, Truth.NOT_MET), *none_met)
    if verdict == UNDETERMINED:
        against = (*having(ABSOLUTE, Truth.MET), *having(EXCLUDES, Truth.MET), *having(REQUIRES, Truth.NOT_MET))
        if no_candidate_either_way(assessment) and against:
            return (*against, *having(SCOPE, Truth.UNKNOWN))
        open_ = tuple(c for e in DECIDING if e not in {RELATIVE, INDICATES} for c in having(e, Truth.UNKNOWN))
        indicated = having(INDICATES, Truth.MET)
        return (*open_, *(() if indicated else having(INDICATES, Truth.UNKNOWN)))
    if verdict == "CandidateWithCaution":
        return having(RELATIVE, Truth.MET)
    if verdict == "CandidateScreeningOpen":
        return having(RELATIVE, Truth.UNKNOWN)
    return (*having(REQUIRES, Truth.MET), *having(INDICATES, Truth.MET))


def reasons(k: Knowledge, assessment: Assessment) -> list[tuple[ClauseResult, list[str]]]:
    """The deciding clauses, each with the leaves that decide it in words."""
    return [
        (clause, list(dict.fromkeys(leaf_words(k, leaf) for leaf in deciding(clause.proof))))
        for clause in decisive_clauses(assessment)
    ]


# -- what is missing


@dataclass(frozen=True, slots=True)
class Need:
    """A feature that is unknown and on which an open verdict depends."""

    subject: str
    feature: str
    causes: tuple[Cause, ...]
    clauses: tuple[str, ...]
    acquisition: str
    burden: int

    @property
    def obtainable(self) -> bool:
        """Whether it can be had at all."""
        return Cause.NOT_ASSESSABLE not in self.causes


def needs(k: Knowledge, assessment: Assessment) -> tuple[Need, ...]:
    """The unknown features of the clauses on which the verdict still depends, the least burdensome first.

    Whatever their values, together they settle the verdict, save for bands that the source leaves open; a smaller set
    may do.
    """
    if len(assessment.conclusion.reachable) < 2:
        return ()
    found: dict[tuple[str, str], tuple[list[Cause], list[str]]] = {}
    scope = assessment.having(SCOPE, Truth.UNKNOWN)
    for clause in scope if scope and no_candidate_either_way(assessment) else assessment.counted:
        if clause.recommendation.effect not in DECIDING:
            continue
        for leaf in clause.proof.unknown_leaves():
            if leaf.gap is None or leaf.gap.cause is Cause.LEFT_OPEN:
                continue
            causes, clauses = found.setdefault((leaf.subject, leaf.criterion.term), ([], []))
            causes.append(leaf.gap.cause)
            clauses.append(clause.recommendation.id)
    rows = []
    for (subject, term), (causes, clauses) in found.items():
        feature = k.features.get(term)
        rows.append(
            Need(
                subject,
                term,
                tuple(dict.fromkeys(causes)),
                tuple(dict.fromkeys(clauses)),
                k.label(feature.acquisition) if feature else "",
                feature.burden if feature else 0,
            )
        )
    return tuple(sorted(rows, key=lambda n: (not n.obtainable, n.burden, -len(n.clauses), n.feature)))


def range_json(value: Range) -> object:
    """A range as JSON: a number, or its bounds."""
    if value.exact is not None:
        return _number(value.exact)
    bounds = {}
    if value.low is not None:
        bounds["above" if value.low_open else "min"] = _number(value.low)
    if value.high is not None:
        bounds["below" if value.high_open else "max"] = _number(value.high)
    return bounds


def _number(value: object) -> int | float:
    number = float(str(value))
    return int(number) if number.is_integer() else number
