"""From a record and a date to the resolved snapshot: one state per subject and feature.

Selection rules, conflict windows, lookbacks, contradictions through the hierarchy, propagation between lesion and
patient, and the closed list of derivations. It knows no guideline (design: section 2).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal

from kypho_kg import derivation
from kypho_kg.criteria import Op
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.record import (
    LESION,
    PATIENT,
    Cause,
    Fact,
    Mood,
    Polarity,
    Range,
    Record,
    Status,
    TimeSpan,
    Value,
    highest,
)
from kypho_kg.state import NOT_RECORDED, Gap, Resolved

_UNSURE = frozenset({Status.UNCONFIRMED, Status.PROVISIONAL, Status.DIFFERENTIAL})
_VOID = frozenset({Status.REFUTED, Status.ENTERED_IN_ERROR})
PRIORITY = (
    Cause.CONFLICTING,
    Cause.INVALID,
    Cause.NOT_ASSESSABLE,
    Cause.IN_WORDS_ONLY,
    Cause.INDETERMINATE,
    Cause.IMPRECISE,
    Cause.LEFT_OPEN,
    Cause.PENDING,
    Cause.STALE,
    Cause.NOT_ATTRIBUTED,
    Cause.NOT_RECORDED,
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What holds of a patient on a date, as far as the record says so."""

    record: Record
    knowledge: Knowledge
    as_of: date
    values: Mapping[tuple[str, str], Resolved]
    present: Mapping[str, tuple[Fact, ...]]
    """Findings present, by subject."""
    absent: Mapping[str, tuple[Fact, ...]]
    """Classes of findings ruled out, by subject."""
    gaps: Mapping[str, tuple[tuple[str, Gap], ...]]
    """Findings that are unknown for a stated cause, by subject."""
    stale: tuple[Fact, ...]
    ignored: tuple[tuple[Fact, str], ...]
    """Facts that never count, with the reason."""
    derived: tuple[Fact, ...] = ()
    """Facts that rules added: closures, bridges and assumptions."""

    def subjects(self) -> tuple[str, ...]:
        """The patient and its lesions."""
        return (PATIENT, *(LESION + lesion.id for lesion in self.record.lesions))

    def value(self, subject: str, feature: str) -> Resolved:
        """The state of a feature that is no finding."""
        found = self.values.get((subject, feature))
        if found is not None:
            return found
        other = self.values.get((PATIENT, feature)) if subject.startswith(LESION) else None
        if other is not None and other.facts:
            return Resolved(gap=Gap(Cause.NOT_ATTRIBUTED, other.facts))
        return Resolved()

    def supports(self, subject: str, cls: str) -> tuple[Fact, ...]:
        """Facts by which the subject has a finding of the class; what a lesion has, the patient has."""
        owners = self.subjects() if subject == PATIENT else (subject,)
        subsumes = self.knowledge.subsumes
        return tuple(f for o in owners for f in self.present.get(o, ()) if subsumes(cls, f.feature))

    def refutations(self, subject: str, cls: str) -> tuple[Fact, ...]:
        """Facts by which the subject lacks every finding of the class; what the patient lacks, each lesion lacks."""
        owners = (subject, PATIENT) if subject.startswith(LESION) else (subject,)
        upper = self.knowledge.ancestors(cls)
        return tuple(f for o in owners for f in self.absent.get(o, ()) if f.feature in upper)

    def finding_gap(self, subject: str, cls: str) -> Gap:
        """Why it is unknown whether the subject has a finding of the class."""
        k = self.knowledge
        own = self.gaps.get(subject, ())
        wider = self.gaps.get(PATIENT, ()) if subject.startswith(LESION) else ()
        if subject == PATIENT:
            wider = tuple(g for s in self.subjects()[1:] for g in self.gaps.get(s, ()))
        related = [g for c, g in (*own, *wider) if k.subsumes(cls, c) or k.subsumes(c, cls)]
        exact = [g for c, g in own if c == cls]
        if related:
            return min(exact or related, key=lambda g: PRIORITY.index(g.cause))
        if subject.startswith(LESION):
            loose = tuple(f for f in self.present.get(PATIENT, ()) if k.subsumes(cls, f.feature))
            if loose:
                return Gap(Cause.NOT_ATTRIBUTED, loose)
        return NOT_RECORDED


def resolve(record: Record, knowledge: Knowledge, as_of: date, extra: tuple[Fact, ...] = ()) -> Snapshot:
    """Resolve a record as of a date.

    :param extra: facts that rules derived (bridges, closures, policies); they carry their rule and premises.
    """
    return _Resolver(record, knowledge, as_of).run(extra)


class _Resolver:
    def __init__(self, record: Record, knowledge: Knowledge, as_of: date) -> None:
        self.record = record
        self.k = knowledge
        self.as_of = as_of
        self.now = TimeSpan.of(as_of)
        self.stale: list[Fact] = []
        self.ignored: list[tuple[Fact, str]] = []

    def run(self, extra: tuple[Fact, ...]) -> Snapshot:
        rows: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        pending: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        old: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        # In an order of their own, so that an answer does not depend on that of the record.
        for fact in (*sorted(self.record.facts, key=self._rank), *extra):
            self._sort_in(fact, rows, pending, old)
        values: dict[tuple[str, str], Resolved] = {}
        findings: list[Fact] = []
        gaps: dict[str, list[tuple[str, Gap]]] = defaultdict(list)
        for key in {**rows, **pending, **old}:
            subject, iri = key
            feature = self.k.features[iri]
            late = _late_gap(pending.get(key, ()), old.get(key, ()))
            if feature.kind is Op.FINDING:
                findings.extend(rows.get(key, ()))
                if late:
                    gaps[subject].append((iri, late))
            else:
                resolved = self._series(feature, rows.get(key, []))
                values[key] = replace(resolved, gap=late) if late and resolved.gap is NOT_RECORDED else resolved
        present, absent, withheld = self._findings(findings)
        for subject, entries in withheld.items():
            gaps[subject].extend(entries)
        context = derivation.Context(self.k, self.record, self.as_of, rows, values, present)
        for fact in derivation.derive(context):
            values[fact.subject, fact.feature] = Resolved(fact.value, (fact,))
        return Snapshot(
            self.record,
            self.k,
            self.as_of,
            values,
            {s: tuple(f) for s, f in present.items()},
            {s: tuple(f) for s, f in absent.items()},
            {s: tuple(g) for s, g in gaps.items()},
            tuple(self.stale),
            tuple(self.ignored),
            tuple(f for f in extra if f.rule),
        )

    # -- which facts count

    def _sort_in(
        self,
        fact: Fact,
        rows: dict[tuple[str, str], list[Fact]],
        pending: dict[tuple[str, str], list[Fact]],
        old: dict[tuple[str, str], list[Fact]],
    ) -> None:
        feature = self.k.features[fact.feature]
        key = (fact.subject, fact.feature)
        time = fact.time or self.now
        if fact.overridden_by:
            self.ignored.append((fact, f"overridden by {fact.overridden_by}"))
        elif fact.status in _VOID:
            self.ignored.append((fact, f"{fact.status}"))
        elif time.start.date() > self.as_of:
            self.ignored.append((fact, f"later than the as-of date {self.as_of}"))
        elif feature.lookback is not None and time.days_until(self.as_of)[1] > feature.lookback:
            self.stale.append(fact)
            old[key].append(fact)
        elif fact.mood is not Mood.OBSERVED and not feature.order_suffices:
            pending[key].append(fact)
        elif fact.invalid:
            rows[key].append(replace(fact, polarity=Polarity.INDETERMINATE, cause=Cause.INVALID))
        elif fact.status in _UNSURE:
            rows[key].append(replace(fact, polarity=Polarity.INDETERMINATE, cause=fact.cause or Cause.INDETERMINATE))
        else:
            rows[key].append(fact)

    def _rank(self, fact: Fact) -> tuple[object, ...]:
        time, said = fact.time or self.now, fact.source
        value = sorted(fact.value) if isinstance(fact.value, frozenset) else [str(fact.value)]
        return (
            *(fact.subject, fact.feature, time.start, time.end, value, fact.polarity, fact.mood, fact.status),
            *(fact.reason, fact.words, said.document, said.date, said.author, said.quote),
        )

    def _time(self, fact: Fact) -> TimeSpan:
        return (fact.time or self.now).until(self.as_of)

    # -- categories, choices, quantities, dates

    def _series(self, feature: Feature, facts: list[Fact]) -> Resolved:
        unclear = [f for f in facts if f.polarity is Polarity.INDETERMINATE]
        shown = [f for f in facts if f.polarity is not Polarity.INDETERMINATE]
        # A later unclear or invalid fact hides older ones.
        kept = [f for f in shown if all(self._time(f).wholly_after(self._time(u)) for u in unclear)]
        if unclear and not kept:
            latest = max(self._time(f).end for f in unclear)
            gaps = [_gap_of(u) for u in unclear if self._time(u).end == latest]
            return Resolved(gap=min(gaps, key=lambda g: PRIORITY.index(g.cause)))
        values = [f for f in kept if f.polarity is Polarity.PRESENT]
        out = [f for f in kept if f.polarity is Polarity.ABSENT]
        chosen = self._select(feature, values) if values else Resolved()
        if chosen.gap.cause is Cause.CONFLICTING:
            return chosen
        return self._exclude(feature, chosen, out)

    def _select(self, feature: Feature, facts: list[Fact]) -> Resolved:
        now = [(self._advanced(feature, f), f) for f in facts]
        newest = max(now, key=lambda vf: (self._time(vf[1]).end, self._time(vf[1]).start))
        if feature.rule != "Latest":
            window = [
                vf for vf in now if _days_between(self._time(vf[1]), self._time(newest[1])) <= feature.selection_window
            ]
            return _worst(window, highest_counts=feature.rule == "HighestInWindow")
        said, value, used = [newest[0]], newest[0], [newest[1]]
        for other, fact in now:
            if fact is newest[1] or self._time(newest[1]).wholly_after(self._time(fact), feature.conflict_window):
                continue
            said.append(other)
            common = self._common(feature, said)
            if common is None:
                return Resolved(gap=Gap(Cause.CONFLICTING, (fact, newest[1])))
            if common != value:
                value = common
                used.append(fact)
        return Resolved(value, tuple(used))

    def _common(self, feature: Feature, said: list[Value]) -> Value:
        """What all say, or ``None`` where they contradict; their order does not matter."""
        ranges = [v for v in said if isinstance(v, Range)]
        if ranges:
            return derivation.agreed(ranges, derivation.ROUNDING if feature.advances else Decimal(0))
        sets = [v for v in said if isinstance(v, frozenset)]
        if sets:
            return frozenset.intersection(*sets) or None
        spans = [v for v in said if isinstance(v, TimeSpan)]
        if spans:
            start, end = max(s.start for s in spans), min(s.end for s in spans)
            whole = next((s for s in spans if (s.start, s.end) == (start, end)), None)
            return whole or (TimeSpan(start, end, f"{start.date()}/{end.date()}") if start <= end else None)
        classes = {v for v in said if isinstance(v, str)}
        return next((c for c in classes if classes <= self.k.ancestors(c)), None)

    def _advanced(self, feature: Feature, fact: Fact) -> Value:
        """A stated age or duration as it is on the as-of date."""
        if not feature.advances or not isinstance(fact.value, Range) or fact.time is None:
            return fact.value
        return derivation.advance(fact.value, self._time(fact), self.as_of, feature.unit)

    def _exclude(self, feature: Feature, chosen: Resolved, out: list[Fact]) -> Resolved:
        """The value with what was ruled out; where nothing of it is left, the later side wins or both are withheld."""
        pairs = [(i, f) for f in out for i in (f.value if isinstance(f.value, frozenset) else (str(f.value),))]
        value, facts = chosen.value, chosen.facts
        if facts:
            said, window = self._time(facts[0]), feature.conflict_window
            older = [p for p in pairs if said.wholly_after(self._time(p[1]), window)]
            later = [p for p in pairs if self._time(p[1]).wholly_after(said, window)]
            live = [p for p in pairs if p not in older]
            if self._empties(later, value):
                value, facts = None, ()
            elif self._empties(live, value):
                against = dict.fromkeys(f for item, f in live if self._hits(item, value))
                return Resolved(gap=Gap(Cause.CONFLICTING, (*facts, *against)))
            elif self._empties(pairs, value):
                pairs = live + [p for p in older if not self._hits(p[0], value)]
        ruled_out = dict(pairs)
        return Resolved(value.difference(ruled_out) if isinstance(value, frozenset) else value, facts, ruled_out)

    def _hits(self, item: str, value: Value) -> bool:
        """Whether an excluded item touches the value: is one of a choice, or the class or a broader one."""
        if isinstance(value, frozenset):
            return item in value
        return isinstance(value, str) and self.k.subsumes(item, value)

    def _empties(self, out: list[tuple[str, Fact]], value: Value) -> bool:
        """Whether the exclusions leave nothing of the value."""
        if isinstance(value, frozenset):
            return value <= {item for item, _ in out}
        return any(self._hits(item, value) for item, _ in out)

    # -- findings

    def _findings(
        self, facts: list[Fact]
    ) -> tuple[dict[str, list[Fact]], dict[str, list[Fact]], dict[str, list[tuple[str, Gap]]]]:
        """Present and ruled-out findings after contradictions, and what is withheld."""
        present = [f for f in facts if f.polarity is Polarity.PRESENT]
        absent = [f for f in facts if f.polarity is Polarity.ABSENT]
        unclear = [f for f in facts if f.polarity is Polarity.INDETERMINATE]
        dropped: set[int] = set()
        withheld: dict[str, list[tuple[str, Gap]]] = defaultdict(list)
        for p in present:
            for a in absent:
                if self._contradict(p, a):
                    self._settle(p, a, dropped, withheld)
        for u in unclear:
            hidden = [
                f for f in (*present, *absent) if not self._time(f).wholly_after(self._time(u)) and self._hides(u, f)
            ]
            dropped.update(map(id, hidden))
            newer = any(
                f.feature == u.feature and f.subject == u.subject and self._time(f).wholly_after(self._time(u))
                for f in (*present, *absent)
            )
            gap = _gap_of(u)
            for fact in hidden:
                withheld[fact.subject].append((fact.feature, gap))
            if not newer:
                withheld[u.subject].append((u.feature, gap))
        return (
            _by_subject(f for f in present if id(f) not in dropped),
            _by_subject(f for f in absent if id(f) not in dropped),
            withheld,
        )

    def _contradict(self, p: Fact, a: Fact) -> bool:
        same = p.subject == a.subject or (a.subject == PATIENT and p.subject.startswith(LESION))
        return same and self.k.subsumes(a.feature, p.feature)

    def _settle(self, p: Fact, a: Fact, dropped: set[int], withheld: dict[str, list[tuple[str, Gap]]]) -> None:
        window = max(self.k.features[p.feature].conflict_window, self.k.features[a.feature].conflict_window)
        tp, ta = self._time(p), self._time(a)
        timeless = bool(p.timeless or a.timeless)
        if not timeless and tp.wholly_after(ta, window):
            dropped.add(id(a))
        elif not timeless and ta.wholly_after(tp, window):
            dropped.add(id(p))
        else:
            dropped.update((id(p), id(a)))
            gap = Gap(Cause.CONFLICTING, (p, a))
            for fact in (p, a):
                withheld[fact.subject].append((fact.feature, gap))

    def _hides(self, unclear: Fact, fact: Fact) -> bool:
        """Whether a reading of the unclear fact would contradict the other."""
        same = unclear.subject == fact.subject
        if fact.polarity is Polarity.PRESENT:
            return same and self.k.subsumes(unclear.feature, fact.feature)
        reaches = same or (fact.subject == PATIENT and unclear.subject.startswith(LESION))
        return reaches and self.k.subsumes(fact.feature, unclear.feature)


def _by_subject(facts: Iterable[Fact]) -> dict[str, list[Fact]]:
    rows: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        rows[fact.subject].append(fact)
    return rows


def _gap_of(fact: Fact) -> Gap:
    reason = fact.invalid or fact.reason or (f"“{fact.words}”" if fact.words else "")
    if not reason and fact.status is not Status.CONFIRMED:
        reason = str(fact.status)
    return Gap(fact.cause or Cause.INDETERMINATE, (fact,), reason)


def _late_gap(pending: Iterable[Fact], old: Iterable[Fact]) -> Gap | None:
    for cause, facts in ((Cause.PENDING, tuple(pending)), (Cause.STALE, tuple(old))):
        if facts:
            return Gap(cause, facts, str(facts[0].mood) if cause is Cause.PENDING else "")
    return None


def _days_between(earlier: TimeSpan, later: TimeSpan) -> int:
    return max(0, (later.start.date() - earlier.end.date()).days)


def _worst(window: list[tuple[Value, Fact]], *, highest_counts: bool) -> Resolved:
    """The highest or the lowest of the values, with the facts that set its bounds."""
    ranges = [(v if highest_counts else v.negated(), f) for v, f in window if isinstance(v, Range)]
    worst = highest([r for r, _ in ranges])
    used = tuple(f for r, f in ranges if worst.low == r.low or worst.high == r.high)
    return Resolved(worst if highest_counts else worst.negated(), used)
