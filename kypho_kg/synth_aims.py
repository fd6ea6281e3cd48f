"""The recipes of all clauses as arrays, so that they can be put into many patients at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from kypho_kg.evaluation import Truth
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import Cause, Polarity
from kypho_kg.synth_answers import INDEX_LESION, Recipe, State, recipes
from kypho_kg.synth_draws import MICRO, Bools, Ints
from kypho_kg.synth_rows import CAUSES, NONE, POLARITIES
from kypho_kg.vocabulary import local


class Aims:
    """The recipes of all clauses as arrays, to be put into many patients at once.

    :param guidelines: ids; all, if not given.
    """

    def __init__(self, k: Knowledge, guidelines: Iterable[str] = ()) -> None:
        chosen = [k.guideline(g) for g in guidelines] or list(k.guidelines.values())
        self.k = k
        self.recipes: list[Recipe] = []
        self._tree: list[list[list[list[int]]]] = []
        """Guideline, clause, truth, recipe."""
        self._clears: list[frozenset[str]] = []
        clause_of: list[int] = []
        for guideline in chosen:
            clauses = []
            for recommendation in guideline.recommendations:
                by_truth: dict[Truth, list[int]] = {}
                for recipe in recipes(k, recommendation):
                    by_truth.setdefault(recipe.truth, []).append(len(self.recipes))
                    self.recipes.append(recipe)
                    clause_of.append(len(self._clears))
                if by_truth:
                    clauses.append(list(by_truth.values()))
                    self._clears.append(self.recipes[-1].clears)
            if clauses:
                self._tree.append(clauses)
        self.names = [(r.clause, r.truth.words) for r in self.recipes]
        self.clause_of: Ints = np.array(clause_of, dtype=np.int64)
        self.clears: Bools = np.zeros((0, 0), dtype=bool)
        self.starts: Ints = np.zeros(1, dtype=np.int64)
        self.facts: Mapping[str, npt.NDArray[np.int64]] = {}

    def choose(self, guideline: float, clause: float, rest: float) -> int:
        """The recipe that three uniform numbers pick: guideline, clause, then truth and way."""
        clauses = self._tree[int(guideline * len(self._tree))]
        truths = clauses[int(clause * len(clauses))]
        place, rest = divmod(rest * len(truths), 1)
        ways = truths[int(place)]
        return ways[int(rest * len(ways))]

    def prepare(self, codes: Mapping[str, int], words: list[str]) -> None:
        """Turn recipes into rows, with the codes of features and words of a generator; new words are added."""
        known = {w: i for i, w in enumerate(words)}
        rows: list[dict[str, int]] = []
        starts = [0]
        for recipe in self.recipes:
            for (subject, iri), state in recipe.states.items():
                base = {"unit": int(subject == INDEX_LESION), "feature": codes[local(iri)]}
                for row in _rows(state):
                    word = row.pop("word", "")
                    if word:
                        row["value"] = known.setdefault(str(word), len(known))
                    rows.append({**base, **row})  # type: ignore[dict-item]
            starts.append(len(rows))
        words[:] = known
        names = {"unit": 0, "feature": 0, "polarity": 0, "value": NONE, "low": NONE, "high": NONE, "cause": NONE}
        self.facts = {n: np.array([r.get(n, d) for r in rows], dtype=np.int64) for n, d in names.items()}
        self.starts = np.array(starts, dtype=np.int64)
        # One line more, of nothing, for the patients that are not aimed.
        self.clears = np.zeros((len(self._clears) + 1, len(codes)), dtype=bool)
        for i, clears in enumerate(self._clears):
            self.clears[i, [codes[local(f)] for f in clears]] = True


def _rows(state: State) -> Iterator[dict[str, int | str]]:
    """The rows that record a state."""
    if not state.known:
        yield {
            "polarity": POLARITIES.index(Polarity.INDETERMINATE.value),
            "cause": CAUSES.index(Cause.INDETERMINATE.value),
        }
        return
    row: dict[str, int | str] = {"polarity": POLARITIES.index(Polarity.PRESENT.value)}
    if state.range is not None:
        exact = state.range.exact
        assert exact is not None
        row["low"] = row["high"] = int(exact * MICRO)
    elif state.values or state.cls:
        row["word"] = "|".join(sorted(local(v) for v in state.values or {state.cls}))
    elif not state.present:
        row["polarity"] = POLARITIES.index(Polarity.ABSENT.value)
    yield row
    for out in sorted(state.excluded):
        yield {"polarity": POLARITIES.index(Polarity.ABSENT.value), "word": local(out)}
