"""Two guidelines, or two versions of one, side by side; and the patients whose verdict turns on which is asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from kypho_kg.candidacy import Assessment, CaseAnswer, ClauseResult
from kypho_kg.criteria import Criterion, Op
from kypho_kg.guidelines import Guideline, Recommendation
from kypho_kg.knowledge import Knowledge
from kypho_kg.reasons import decisive_clauses
from kypho_kg.words import asked_words


def canonical(c: Criterion) -> tuple[object, ...]:
    """A condition without names and without the order of operands: equal for equal trees.

    >>> from kypho_kg.criteria import Criterion, Op
    >>> a, b = Criterion(Op.FINDING, term="a"), Criterion(Op.FINDING, term="b")
    >>> canonical(Criterion(Op.AND, (a, b), name="x")) == canonical(Criterion(Op.AND, (b, a)))
    True
    """
    children = [canonical(child) for child in c.children]
    if c.op in {Op.AND, Op.OR, Op.AT_LEAST}:
        children.sort(key=repr)
    return (str(c.op), c.term, tuple(sorted(c.values)), str(c.range), c.n, tuple(children))


# -- two guidelines


@dataclass(frozen=True, slots=True)
class Use:
    """How a clause asks for a feature."""

    recommendation: Recommendation
    asked: str
    """The limit or value in words; empty for a finding."""
    negated: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One feature in two guidelines."""

    feature: str
    left: tuple[Use, ...]
    right: tuple[Use, ...]

    @property
    def same(self) -> bool:
        """Whether both ask for it with the same effects and limits."""
        return self.left != () and _asked(self.left) == _asked(self.right)


def _asked(uses: Iterable[Use]) -> set[tuple[str, str, bool]]:
    return {(u.recommendation.effect, u.asked, u.negated) for u in uses}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two guidelines feature by feature."""

    left: Guideline
    right: Guideline
    rows: tuple[Row, ...]
    equal: tuple[tuple[Recommendation, Recommendation], ...]
    """Pairs of clauses with the same condition."""


def compare(k: Knowledge, left: Guideline, right: Guideline) -> Comparison:
    """What each guideline asks of every feature that one of them reads."""
    uses = [_uses(k, g) for g in (left, right)]
    features = sorted(uses[0].keys() | uses[1].keys(), key=lambda f: (not (f in uses[0] and f in uses[1]), k.label(f)))
    rows = tuple(Row(f, tuple(uses[0].get(f, ())), tuple(uses[1].get(f, ()))) for f in features)
    conditions = {canonical(r.criterion): r for r in right.recommendations}
    pairs = ((r, conditions.get(canonical(r.criterion))) for r in left.recommendations)
    return Comparison(left, right, rows, tuple((a, b) for a, b in pairs if b is not None))


def _uses(k: Knowledge, guideline: Guideline) -> dict[str, list[Use]]:
    found: dict[str, list[Use]] = defaultdict(list)
    for r in guideline.recommendations:
        for atom, negated in _atoms(r.criterion):
            use = Use(r, "" if atom.op is Op.FINDING else asked_words(k, atom), negated)
            if use not in found[atom.term]:
                found[atom.term].append(use)
    return found


def _atoms(c: Criterion, negated: bool = False) -> Iterator[tuple[Criterion, bool]]:
    """The atoms of a tree, each with whether it stands under a negation."""
    if not c.children:
        yield c, negated
    for child in c.children:
        yield from _atoms(child, negated is not (c.op is Op.NOT))


# -- two versions


class Change(StrEnum):
    """What became of a clause."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class ClauseChange:
    """A clause of the old version, of the new one, or both."""

    kind: Change
    old: Recommendation | None
    new: Recommendation | None
    fields: tuple[str, ...] = ()
    """What differs: condition, effect, rating, mark, strength, text."""


def diff(old: Guideline, new: Guideline) -> tuple[ClauseChange, ...]:
    """Clause by clause: what the new version names as replaced, else what has the same id."""
    by_id = {r.id: r for r in old.recommendations}
    by_clause = {r.clause: r for r in old.recommendations}
    changes, seen = [], set()
    for r in new.recommendations:
        former = [by_id[i] for i in r.replaces if i in by_id]
        if not former and r.clause in by_clause:
            former = [by_clause[r.clause]]
        if not former:
            changes.append(ClauseChange(Change.ADDED, None, r))
        for each in former:
            seen.add(each.id)
            fields = tuple(_differing(each, r))
            changes.append(ClauseChange(Change.CHANGED if fields else Change.SAME, each, r, fields))
    gone = (ClauseChange(Change.REMOVED, r, None) for r in old.recommendations if r.id not in seen)
    return (*changes, *gone)


def _differing(old: Recommendation, new: Recommendation) -> Iterator[str]:
    if canonical(old.criterion) != canonical(new.criterion):
        yield "condition"
    for name in ("effect", "mark", "strength", "grade", "reading", "due", "text"):
        if getattr(old, name) != getattr(new, name):
            yield name
    if _rated(old) != _rated(new):
        yield "ratings"


def _rated(r: Recommendation) -> set[tuple[str, str, int | None]]:
    return {(x.option, x.category, x.number) for x in r.ratings}


# -- the patients


@dataclass(frozen=True, slots=True)
class Flip:
    """A case on which the two say different things."""

    case: CaseAnswer
    left: Assessment
    right: Assessment

    @property
    def by(self) -> tuple[ClauseResult, ...]:
        """The clauses of both sides that decide, save those that both hold alike."""
        sides = [decisive_clauses(a) for a in (self.left, self.right)]
        told = [{(canonical(c.recommendation.criterion), c.recommendation.effect, c.truth) for c in s} for s in sides]
        common = told[0] & told[1]
        return tuple(
            c
            for s in sides
            for c in s
            if (canonical(c.recommendation.criterion), c.recommendation.effect, c.truth) not in common
        )


def flips(left: Sequence[CaseAnswer], right: Sequence[CaseAnswer], ids: tuple[str, str]) -> tuple[Flip, ...]:
    """The cases whose verdict, or rated category, differs between two guidelines.

    :param left: the cases as judged by the first; ``right`` the same cases in the same order as judged by the second.
    """
    found = []
    for a, b in zip(left, right, strict=True):
        one, other = (
            next(x for x in case.assessments if x.guideline.id == i) for case, i in zip((a, b), ids, strict=True)
        )
        if (one.verdict, one.categories) != (other.verdict, other.categories):
            found.append(Flip(a, one, other))
    return tuple(found)
