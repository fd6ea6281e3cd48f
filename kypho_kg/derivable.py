"""Which features the engine works out for some patient from what is recorded.

Looked up in the records as they are, without a date, so that it costs little for many patients. What is withheld when
a record is read, because facts contradict one another or lie after the date, is counted too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from kypho_kg.criteria import Criterion, Op
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.record import Fact, Mood, Polarity, Range, Record, Status, TimeSpan
from kypho_kg.scores import Score, read_scores


def derivable(k: Knowledge, records: Iterable[Record]) -> frozenset[str]:
    """IRIs of the features that some record has the inputs of.

    A duration needs its date, or the dated finding that it is the age of; a trend two values of one subject at two
    times; a count of levels a session; a count of lesions a lesion; a score something for each of its items.
    """
    found: set[str] = set()
    open_ = [f for f in k.features.values() if f.derived_by in _SOURCES]
    scores = read_scores(k)
    for record in records:
        said = [f for f in record.facts if _says_something(f)]
        present = [f for f in said if f.polarity is Polarity.PRESENT]
        found.update(f.iri for f in open_ if f.iri not in found and _SOURCES[f.derived_by](k, f, record, present))
        if any(s.quantity not in found for s in scores):
            known = {above for feature in {f.feature for f in said} for above in k.ancestors(feature)}
            found.update(s.quantity for s in scores if _has_items(s, known))
    return frozenset(found)


def _says_something(fact: Fact) -> bool:
    """Whether a fact counts and is more than that something is unknown."""
    counts = fact.mood is Mood.OBSERVED and not fact.invalid and fact.overridden_by is None
    return counts and fact.polarity is not Polarity.INDETERMINATE and fact.status is Status.CONFIRMED


def _has_date(k: Knowledge, feature: Feature, record: Record, facts: Sequence[Fact]) -> bool:
    origin = k.features.get(feature.derived_from)
    if origin is None:
        return False
    if origin.kind is Op.FINDING:
        return any(f.time and k.subsumes(origin.iri, f.feature) for f in facts)
    return any(f.feature == origin.iri for f in facts)


def _has_lesion(k: Knowledge, feature: Feature, record: Record, facts: Sequence[Fact]) -> bool:
    return bool(record.lesions)


def _has_session(k: Knowledge, feature: Feature, record: Record, facts: Sequence[Fact]) -> bool:
    return record.procedure is not None and bool(record.procedure.lesions)


def _has_series(k: Knowledge, feature: Feature, record: Record, facts: Sequence[Fact]) -> bool:
    times: defaultdict[str, set[TimeSpan | None]] = defaultdict(set)
    for f in facts:
        if f.feature == feature.derived_from and isinstance(f.value, Range) and f.value.exact is not None:
            times[f.subject].add(f.time)
    return any(len(different) > 1 for different in times.values())


def _has_items(score: Score, known: set[str]) -> bool:
    return all(any(_asks_of(o.condition, known) for o in item.options) for item in score.items)


def _asks_of(condition: Criterion, known: set[str]) -> bool:
    return any(not node.children and node.term in known for node in condition.walk())


_SOURCES: dict[str, Callable[[Knowledge, Feature, Record, Sequence[Fact]], bool]] = {
    "DifferenceOfDates": _has_date,
    "CountOfLesions": _has_lesion,
    "CountOfSessionLevels": _has_session,
    "TrendOfSeries": _has_series,
}
