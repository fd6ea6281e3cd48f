"""How the verdicts on a patient change over time, and what changed them.

A fact begins to count on its date, goes stale after its lookback, gives way to what is stated later; an age or duration
grows past the limit of a clause. Between such dates nothing changes, so the record is assessed on these alone.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from kypho_kg.candidacy import ALL, Answer, Assumed, assess
from kypho_kg.criteria import ATOMS, Criterion, Op
from kypho_kg.derivation import advance, elapsed
from kypho_kg.errors import UsageError
from kypho_kg.evaluation import Proof, Truth
from kypho_kg.guidelines import DECIDING, RATES
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.reasons import deciding
from kypho_kg.record import LESION, PROCEDURE, Fact, Mood, Range, Record, Status, TimeSpan
from kypho_kg.scores import read_scores
from kypho_kg.vocabulary import KYPHO
from kypho_kg.words import fact_words, leaf_words, unit_words

if TYPE_CHECKING:
    from rich.console import Console

MOST_DATES = 400  # more are not assessed
_TOLD = 8  # more causes are counted, not printed; the JSON has all
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class ClauseTurn:
    """One clause whose truth differs between two dates."""

    id: str
    before: Truth
    after: Truth
    because: tuple[str, ...]
    """The conditions that turned, each with what happened to what is recorded."""


@dataclass(frozen=True, slots=True)
class VerdictTurn:
    """One guideline on one lesion whose verdict, or rated category, differs; with the clauses that count for it."""

    lesion: str
    guideline: str
    before: str
    """Local name of the verdict; empty on the first date, and where the guideline was not asked."""
    after: str
    clauses: tuple[ClauseTurn, ...]
    assumed: tuple[str, ...] = ()
    """The assumption policies under which this is the verdict; empty for the one with nothing assumed."""
    ratings_before: tuple[str, ...] = ()
    """Local names of the categories in which a panel put what is proposed."""
    ratings_after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Moment:
    """A date on which a verdict changes, or the first one."""

    day: date
    causes: tuple[str, ...]
    """What happens to the record on that day, as far as the guidelines read it."""
    turns: tuple[VerdictTurn, ...]


def moments(
    record: Record,
    k: Knowledge,
    *,
    guidelines: Sequence[str] | None,
    first: date | None = None,
    last: date | None = None,
    **options: Any,
) -> tuple[Moment, ...]:
    """The first date with its verdicts, and every later date on which a verdict changes.

    The record is not checked against the shapes. A fact without a time is stated as current on every date.

    :param guidelines: ids, or ``all``; by default what is asked on the as-of date of the record, for all dates.
    :param first: by default the first date of a fact.
    :param last: by default the as-of date of the record.
    :raises UsageError: without a last date, for a first date after it, an unknown name, or more than 400 dates.
    """
    end = last or record.as_of
    if end is None:
        raise UsageError(f"{record.place}: no last date; give one in the file (as_of) or with --to")
    start = first or min([end, *(f.time.start.date() for f in record.facts if f.time and _may_count(f))])
    if start > end:
        raise UsageError(f"the first date {start} is after the last {end}")
    if not guidelines:
        today = assess(record, as_of=record.as_of or end, knowledge=k, validate=False, **options)
        guidelines = [a.guideline.id for case in today.cases[:1] for a in case.assessments]
    ids = list(k.guidelines) if ALL in guidelines else list(guidelines)
    events = [e for e in _Calendar(record, k, ids, options).events(start, end) if start <= e.day <= end]
    days = sorted({start, *(e.day for e in events)})
    if len(days) > MOST_DATES:
        many = f"{record.place}: {len(days)} dates to assess from {start} to {end}, at most {MOST_DATES}"
        raise UsageError(f"{many}; narrow them with --from, --to or --guideline")
    found, before = [], None
    for day in days:
        after = assess(record, as_of=day, knowledge=k, guidelines=ids or None, validate=False, **options)
        turns = compared(before, after)
        if before is None or turns:
            causes = dict.fromkeys(e.words for e in events if e.day == day and e.is_told(after))
            found.append(Moment(day, tuple(causes), turns))
        before = after
    return tuple(found)


# -- the dates on which anything can change


@dataclass(frozen=True, slots=True)
class _Event:
    """Something that happens to a fact on a day."""

    day: date
    words: str
    fact: Fact
    grows: str = ""
    """The feature whose value passes a limit."""

    def is_told(self, answer: Answer) -> bool:
        """Whether there are words for it, and what grows is counted from this fact and not stated otherwise."""
        used = (f for case in answer.cases[:1] for f in case.snapshot.value(self.fact.subject, self.grows).facts)
        return bool(self.words) and (not self.grows or any(self.fact in (f, *f.premises) for f in used))


def _may_count(fact: Fact) -> bool:
    return not fact.overridden_by and fact.status not in {Status.REFUTED, Status.ENTERED_IN_ERROR}


def _terms(criteria: Iterable[Criterion]) -> set[str]:
    return {c.term for criterion in criteria for c in criterion.walk() if c.op in ATOMS}


class _Calendar:
    """The dates on which the snapshot of a record can change for the clauses of some guidelines."""

    def __init__(self, record: Record, k: Knowledge, guidelines: Iterable[str], options: dict[str, Any]) -> None:
        self.k, self.several = k, len(record.lesions) > 1
        facts = [f for f in record.facts if _may_count(f)]
        clauses = [r.criterion for g in guidelines for r in k.guideline(g).recommendations]
        bridges = k.bridges.values() if options.get("bridges", True) else ()
        policies = [k.policy(name) for name in options.get("assume", ()) if name != "strict"]
        asked: list[tuple[set[str], tuple[Criterion, ...]]] = [
            *(({b.conclusion}, (b.condition,)) for b in bridges),
            *((set(c.closes), (c.condition,)) for p in policies for c in p.closures),
            *(({s.quantity}, (s.scope, *(o.condition for i in s.items for o in i.options))) for s in read_scores(k)),
        ]
        rules = [(concluded, _terms(conditions)) for concluded, conditions in asked]
        self.bridges = [(terms, concluded) for concluded, terms in rules[: len(bridges)]]
        rules += [({f.iri}, {f.derived_from}) for f in k.features.values() if f.derived_from]
        rules += [pair for v in k.value_closures for pair in (({v.finding}, {v.choice}), ({v.choice}, {v.finding}))]
        # A recorded finding can contradict another one that a clause reads, and so on.
        rules += [({f.feature}, {f.feature}) for f in facts]
        read = self._reached(_terms(clauses), rules)
        self.facts = [f for f in facts if f.subject == PROCEDURE or f.feature in read]
        trees = itertools.chain(clauses, *(conditions for _, conditions in asked))
        ranges: list[tuple[str, object]] = [(c.term, c.range) for tree in trees for c in tree.walk()]
        for a, b in itertools.permutations(self.facts, 2):
            # They begin to contradict, or cease to, as one grows while the other does not or not yet.
            if a.feature == b.feature and k.features[a.feature].advances:
                years = range(130) if k.features[a.feature].unit == "a" else ()
                ranges += [(a.feature, a.value), *((a.feature, Range.exactly(n)) for n in years)]
        limits: dict[str, set[Decimal]] = defaultdict(set)
        for iri, r in ranges:
            if isinstance(r, Range):
                limits[iri].update(x for x in (r.low, r.high) if x is not None)
        self.limits = {iri: sorted(x) for iri, x in limits.items() if x}

    def _reached(self, found: set[str], rules: list[tuple[set[str], set[str]]]) -> set[str]:
        """The features that rules reach from some, or from ones above or below them."""
        while new := [b for a, b in rules if not b <= found and any(self._related(x, y) for x in a for y in found)]:
            found = found.union(*new)
        return found

    def _related(self, a: str, b: str) -> bool:
        return self.k.subsumes(a, b) or self.k.subsumes(b, a)

    def events(self, first: date, last: date) -> Iterator[_Event]:
        """What happens in a period, and some of what happens outside."""
        rivals = {iri for _, concluded in self.bridges for iri in concluded}
        for fact in self.facts:
            if fact.time is None or fact.time.start.date() != fact.time.end.date():
                rivals |= self._reached({fact.feature}, self.bridges)
        for fact in self.facts:
            if fact.time is not None:
                yield from self._of_fact(fact, fact.time, rivals)
            for feature in map(self.k.features.__getitem__, self.limits):
                for begins, value in _clocks(self.k, feature, fact):
                    words = f"{feature.label} begins to count" if isinstance(fact.value, TimeSpan) else ""
                    yield _Event(begins, words, fact, feature.iri)
                    yield from self._crossings(feature, fact, value, max(begins, first), last)

    def _of_fact(self, fact: Fact, time: TimeSpan, rivals: set[str]) -> Iterator[_Event]:
        where = f"lesion {fact.subject.removeprefix(LESION)}: " if self.several and LESION in fact.subject else ""
        words, own = where + _told(self.k, fact), self.k.features[fact.feature].lookback
        first, last = time.start.date(), time.end.date()
        yield _Event(first, f"{words} {'recorded' if fact.mood is Mood.OBSERVED else fact.mood}", fact)
        # What a bridge concludes has the time of the fact, and the lookback and conflict window of its own feature.
        for iri in sorted(self._reached({fact.feature}, self.bridges)):
            feature = self.k.features[iri]
            age, use = feature.lookback, "" if iri == fact.feature else f" to count as {feature.label}"
            if age is not None and (not use or own is None or age < own):
                yield _Event(first + (age + 1) * _DAY, f"{words} too old{use} after {age} days", fact)
            near = [self.k.features[r] for r in rivals if self._related(iri, r)]
            windows = {0, feature.conflict_window, feature.selection_window, *(r.conflict_window for r in near)}
            for window in windows if near else ():
                yield _Event(last + (window + 1) * _DAY, f"{words} gives way to what is stated later", fact)

    def _crossings(
        self, feature: Feature, fact: Fact, value: Callable[[date], Range], first: date, last: date
    ) -> Iterator[_Event]:
        limits = self.limits[feature.iri]

        def places(day: date) -> list[int]:
            """Of both bounds twice the number of limits below, and one more on a limit."""
            bounds = (value(day).low, value(day).high)
            return [-1 if x is None else bisect_left(limits, x) + bisect_right(limits, x) for x in bounds]

        def turning(low: date, high: date) -> Iterator[date]:
            # Both places only ever rise: equal ends leave nothing in between.
            if low < high and places(low) != places(high):
                middle = low + (high - low) // 2
                yield from (high,) if middle == low else (*turning(low, middle), *turning(middle, high))

        for day in turning(first, last):
            ends = list(zip(places(day - _DAY), places(day), strict=True))
            for i, limit in enumerate(limits):
                if moved := [now for was, now in ends if was != now and was <= 2 * i + 1 <= now]:
                    verb = "reaches" if max(moved) == 2 * i + 1 else "passes"
                    part = "" if len(moved) == len(ends) else ", as far as it is known,"
                    yield _Event(day, f"{feature.label}{part} {verb} {limit}{unit_words(feature)}", fact, feature.iri)


def _clocks(k: Knowledge, feature: Feature, fact: Fact) -> Iterator[tuple[date, Callable[[date], Range]]]:
    """The values of a feature that grow with time from a fact, each with the date from which it does."""
    value, time, unit = fact.value, fact.time, feature.unit
    if feature.advances and fact.feature == feature.iri and time and isinstance(value, Range):
        yield time.start.date(), lambda day: advance(value, time.until(day), day, unit)
    origin = k.features.get(feature.derived_from) if feature.derived_by == "DifferenceOfDates" else None
    if origin is None or not k.subsumes(origin.iri, fact.feature):
        return
    begun = time if origin.kind is Op.FINDING else value
    if isinstance(begun, TimeSpan):
        yield begun.start.date(), lambda day: elapsed(begun.until(day), day, unit)


# -- what differs between two answers


def compared(before: Answer | None, after: Answer) -> tuple[VerdictTurn, ...]:
    """The verdicts that differ between two answers on a record, with the clauses that turned; all if none is before."""
    rows, turns = (_judged(before) if before else {}, _judged(after)), []
    for key in {**rows[1], **rows[0]}:
        (said, old), (says, new) = (row.get(key, (("", ()), {})) for row in rows)
        if said != says:
            clauses = tuple(
                ClauseTurn(id_, old[id_].truth, now.truth, tuple(_because(before, after, old[id_], now)))
                for id_, now in new.items()
                if before and id_ in old and old[id_].truth is not now.truth
            )
            turns.append(VerdictTurn(key[0], key[1], said[0], says[0], clauses, key[2], said[1], says[1]))
    return tuple(turns)


_Said = tuple[tuple[str, tuple[str, ...]], dict[str, Proof]]


def _judged(answer: Answer) -> dict[tuple[str, str, tuple[str, ...]], _Said]:
    """By lesion, guideline and policies: the verdict with the rated categories, and the clauses that count for it."""
    found: dict[tuple[str, str, tuple[str, ...]], _Said] = {}
    for case, a in ((c, a) for c in answer.cases for a in c.assessments):
        counted = {c.recommendation.id for c in a.counted if c.recommendation.effect in {*DECIDING, RATES}}
        for view in filter(None, (Assumed((), a.conclusion, (), a.clauses), a.assumed)):
            proofs = {c.recommendation.id: c.proof for c in view.clauses if c.recommendation.id in counted}
            said = view.conclusion.verdict, () if view.policies else a.categories
            found[case.lesion.id, a.guideline.id, view.policies] = said, proofs
    return found


def _because(earlier: Answer, later: Answer, before: Proof, after: Proof) -> Iterator[str]:
    """The leaves that turned and decide the clause or did so before, and if none decides it now, all that do."""
    was, now = ({(x.subject, x.criterion): x for x in p.leaves()} for p in (before, after))
    turned = {key for key, leaf in now.items() if key in was and was[key].truth is not leaf.truth}
    decide, decided = ([(x.subject, x.criterion) for x in deciding(p)] for p in (after, before))
    kept = [key for key in (*decide, *decided) if key in turned]
    for key in dict.fromkeys(kept if turned & {*decide} else (*kept, *decide)):
        if leaf := now.get(key):
            happened = "; ".join(dict.fromkeys(_happened(earlier, later, was.get(key), leaf)))
            yield leaf_words(later.knowledge, leaf) + (f" - {happened}" if happened else "")


def _happened(earlier: Answer, later: Answer, before: Proof | None, after: Proof) -> Iterator[str]:
    """What happened to the facts of a leaf between two dates."""
    k, had, has = later.knowledge, before.facts if before else (), after.facts
    snapshots = [answer.cases[0].snapshot for answer in (earlier, later)]
    stale = {_key(f) for f in snapshots[1].stale} - {_key(f) for f in snapshots[0].stale}
    for f in (*had, *has):
        if _key(f) in stale:
            yield f"{_told(k, f)} too old after {k.features[f.feature].lookback} days"
    was, now = ({_key(f): f for f in _asserted(facts)} for facts in (had, has))
    known, recorded = ({_key(f) for f in answer.record.facts if _may_count(f)} for answer in (earlier, later))
    for key, f in now.items():
        if key not in {*was, *stale}:
            begun = key not in known or (f.time and f.time.start.date() > earlier.as_of)
            yield f"{_told(k, f)} {'recorded' if begun else 'stands'}"
    for key, f in was.items():
        if key not in {*now, *stale}:
            yield f"{_told(k, f)} {'superseded' if key in recorded else 'no longer recorded'}"
    if after.criterion.op is Op.QUANTITY and now.keys() & was.keys():
        old, new = (x.value(after.subject, after.criterion.term).value for x in snapshots)
        if new is not None and old != new:
            since = ", ".join(_told(k, f) for key, f in now.items() if key in was)
            yield f"now {new}{unit_words(k.features[after.criterion.term])} on {later.as_of}, by {since}"


def _key(f: Fact) -> tuple[object, ...]:
    """What stays the same in a fact that the snapshot marks as unclear."""
    return f.subject, f.feature, f.value, f.time, f.source, f.words, f.reason, f.rule


def _asserted(facts: Iterable[Fact]) -> Iterator[Fact]:
    """The recorded facts, and for one that a rule derived those it rests on."""
    for fact in facts:
        yield from _asserted(fact.premises) if fact.rule else (fact,)


def _told(k: Knowledge, fact: Fact) -> str:
    """A fact with the name of its feature, its unit and its date."""
    name, said = k.label(fact.feature), fact_words(k, fact)
    text = said if said.startswith(name) else f"{name} {said}"
    text += unit_words(k.features[fact.feature]) if isinstance(fact.value, Range) else ""
    return text + (f" of {fact.time}" if fact.time and not fact.rule else "")


# -- as data and as text


def as_json(found: Iterable[Moment | VerdictTurn]) -> list[dict[str, Any]]:
    """Moments or turns as JSON, field by field: days in ISO form, truths in words."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(x) for name, x in value.items()}
        if isinstance(value, tuple | list):
            return [plain(x) for x in value]
        return value.words if isinstance(value, Truth) else value.isoformat() if isinstance(value, date) else value

    return [plain(asdict(one)) for one in found]


def print_timeline(console: Console, k: Knowledge, found: Iterable[Moment]) -> None:
    """One block per day: its causes, each verdict that changed, and the clauses that changed it."""
    for moment in found:
        more = len(moment.causes) - _TOLD
        console.print(moment.day.isoformat(), style="bold", highlight=False)
        for line in (*moment.causes[:_TOLD], *((f"and {more} more",) if more > 0 else ())):
            console.print(f"  {line}", style="dim", markup=False, highlight=False)
        print_turns(console, k, moment.turns)


def print_turns(console: Console, k: Knowledge, turns: Iterable[VerdictTurn]) -> None:
    """Each verdict that changed and the clauses that changed it; guidelines that only have a verdict share a line."""
    plain: dict[str, list[str]] = defaultdict(list)
    lines: list[str] = []
    for t in turns:
        named = k.guideline(t.guideline).words
        was, now = (
            (named(verdict) if verdict else "not asked") + "".join(f" ({k.label(KYPHO + r)})" for r in ratings)
            for verdict, ratings in ((t.before, t.ratings_before), (t.after, t.ratings_after))
        )
        assumed = f", assumed ({', '.join(t.assumed)})" if t.assumed else ""
        words = f" on lesion {t.lesion}{assumed}: " + (f"{was} -> {now}" if t.before else now)
        if not t.clauses:
            plain[words].append(t.guideline)
            continue
        lines.append(f"  {t.guideline}{words}")
        for c in t.clauses:
            r = k.guideline(t.guideline).by_clause(c.id.partition("/")[2])
            lines.append(f"    {c.id} {r.label if r else ''}: {c.before.words} -> {c.after.words}")
            lines += [f"      {line}" for line in c.because]
    for line in (*lines, *(f"  {', '.join(ids)}{words}" for words, ids in plain.items())):
        console.print(line, markup=False, highlight=False)
