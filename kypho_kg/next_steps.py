"""What to find out next: the unknown features of a case, by what they would settle and the burden of getting them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from kypho_kg.candidacy import CaseAnswer
from kypho_kg.criteria import Op
from kypho_kg.evaluation import Proof, Truth
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.missing import Missing
from kypho_kg.record import Cause
from kypho_kg.sources.patient_file import FORMAT, PROCEDURE_FEATURES

Key = tuple[str, str]
"""Subject and feature."""


@dataclass(slots=True)
class Step:
    """One feature to find out, and the guidelines for which it matters."""

    subject: str
    feature: Feature
    causes: tuple[Cause, ...] = ()
    settles: list[str] = field(default_factory=list)
    """Guidelines whose verdict it settles whatever it turns out to be."""
    may_settle: list[str] = field(default_factory=list)
    """Guidelines whose verdict some of its values settle."""
    needed: list[str] = field(default_factory=list)
    """Guidelines that need it, together with other features."""

    @property
    def worth(self) -> float:
        """How much it settles for its burden.

        A guideline that it settles for sure counts 1, one that some value of it settles 1/2, one that needs it beside
        others 1/10; the sum is divided by the rank of its burden.
        """
        settled = len(self.settles) + len(self.may_settle) / 2 + len(self.needed) / 10
        return settled / (self.feature.burden or 1)


@dataclass(frozen=True, slots=True)
class Unobtainable:
    """A feature that cannot be assessed, and what would do in its place."""

    subject: str
    feature: Feature
    reason: str
    instead: tuple[Key, ...]


def next_steps(case: CaseAnswer, found: Mapping[str, Missing | None]) -> tuple[Step, ...]:
    """The features worth finding out, the most worthwhile first.

    :param found: what is missing for each guideline, by its id.
    """
    k = case.snapshot.knowledge
    steps: dict[Key, Step] = {}
    for guideline, wanted in found.items():
        if wanted is None or not any(v.startswith("Candidate") for v in wanted.reachable):
            continue  # what only tells one refusal from another is no reason to look for it
        alone = {(s[0].subject, s[0].feature) for s in wanted.decisive if len(s) == 1}
        some = {next(iter(p.features)) for p in wanted.possible if len(p.features) == 1}
        every = {(v.subject, v.feature) for s in wanted.decisive for v in s}
        for key in sorted(every | some):
            step = steps.setdefault(key, Step(key[0], k.features[key[1]]))
            (step.settles if key in alone else step.may_settle if key in some else step.needed).append(guideline)
    causes = _causes(case)
    for key, step in steps.items():
        step.causes = tuple(causes.get(key, ())) or (Cause.NOT_RECORDED,)
    order = sorted(steps.values(), key=lambda s: (-s.worth, s.feature.burden, s.subject, s.feature.name))
    return tuple(order)


def _causes(case: CaseAnswer) -> dict[Key, dict[Cause, None]]:
    """Why each feature is unknown, over all guidelines."""
    found: dict[Key, dict[Cause, None]] = {}
    for a in case.assessments:
        for clause in a.counted:
            for leaf in clause.proof.leaves():
                if leaf.gap:
                    found.setdefault((leaf.subject, leaf.criterion.term), {})[leaf.gap.cause] = None
    return found


def unobtainable(case: CaseAnswer) -> tuple[Unobtainable, ...]:
    """Features that cannot be assessed, with their alternatives.

    An alternative stands beside it as another way to meet the same condition, or is a feature by which a bridge
    concludes it.
    """
    k = case.snapshot.knowledge
    found: dict[Key, tuple[str, dict[Key, None]]] = {}
    for a in case.assessments:
        for clause in a.counted:
            for leaf, beside in _with_alternatives(clause.proof, ()):
                if leaf.gap is None or leaf.gap.cause is not Cause.NOT_ASSESSABLE or leaf.criterion.op is Op.LINK:
                    continue
                key = (leaf.subject, leaf.criterion.term)
                others = found.setdefault(key, (leaf.gap.reason, {}))[1]
                others.update(dict.fromkeys(x for x in beside if x != key))
                if case.bridged:
                    others.update(dict.fromkeys(_bridged(k, leaf)))
    return tuple(
        Unobtainable(key[0], k.features[key[1]], reason, tuple(x for x in others if x not in found))
        for key, (reason, others) in found.items()
    )


def _with_alternatives(proof: Proof, beside: tuple[Key, ...]) -> Iterator[tuple[Proof, tuple[Key, ...]]]:
    """Each atom, with the unknown atoms that stand beside it in the nearest alternative."""
    if not proof.children:
        yield proof, beside
        return
    for child in proof.children:
        mine = beside
        if proof.criterion.op in {Op.OR, Op.AT_LEAST}:
            others = (c for c in proof.children if c is not child)
            mine = tuple(
                (leaf.subject, leaf.criterion.term)
                for other in others
                for leaf in other.leaves()
                if leaf.truth is Truth.UNKNOWN and leaf.gap and leaf.gap.cause is not Cause.NOT_ASSESSABLE
            )
        yield from _with_alternatives(child, mine)


def _bridged(k: Knowledge, leaf: Proof) -> Iterator[Key]:
    for bridge in k.bridges.values():
        if not bridge.rules_out and k.subsumes(leaf.criterion.term, bridge.conclusion):
            yield from ((leaf.subject, c.term) for c in bridge.condition.walk() if not c.children)


def fragment(case: CaseAnswer, steps: Iterable[Step]) -> str:
    """A patient file with just these features left blank, to be filled in and given back by ``--with``."""
    k = case.snapshot.knowledge
    by_subject: dict[str, list[Step]] = {}
    for step in steps:
        by_subject.setdefault(step.subject.partition(":")[0], []).append(step)

    def line(step: Step, indent: str, name: str = "") -> str:
        return f"{indent}{name or step.feature.name}:  # {k.label(step.feature.acquisition)}: {step.feature.plain}"

    lines = [
        f"format: {FORMAT}",
        f"patient: {{id: {_quoted(case.record.patient)}}}",
        "author:  # who found this out",
        f"reason: {_quoted('found out for ' + case.record.patient)}",
    ]
    if "patient" in by_subject:
        lines += ["facts:", *(line(s, "  ") for s in by_subject["patient"])]
    if "lesion" in by_subject:
        mine = by_subject["lesion"]
        level = [line(s, "    ", "level") for s in mine if s.feature.name == "vertebralLevel"]
        rest = [line(s, "      ") for s in mine if s.feature.name != "vertebralLevel"]
        lines += ["lesions:", f"  - id: {_quoted(case.lesion.id)}", *level, *(["    facts:", *rest] if rest else [])]
    if "procedure" in by_subject:
        mine = by_subject["procedure"]
        lines += ["procedure:", f"  lesions: [{_quoted(case.lesion.id)}]"] if not case.in_session else ["procedure:"]
        named = [line(s, "  ", _PROCEDURE[s.feature.name]) for s in mine if s.feature.name in _PROCEDURE]
        rest = [line(s, "    ") for s in mine if s.feature.name not in _PROCEDURE]
        lines += [*named, *(["  facts:", *rest] if rest else [])]
    return "\n".join(lines) + "\n"


_PROCEDURE = {feature: key for key, feature in PROCEDURE_FEATURES.items()}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
