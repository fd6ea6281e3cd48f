"""Times as intervals and the algebra of ranges."""

from __future__ import annotations

import itertools
from datetime import date, datetime
from decimal import Decimal

import pytest
from builders import between, span
from hypothesis import given
from hypothesis import strategies as st

from kypho_kg.record import Fact, Range, Source, TimeSpan, highest

DAY = date(2026, 3, 2)


# -- times


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026", datetime(2026, 1, 1), datetime(2026, 12, 31, 23, 59, 59)),
        ("2026-02", datetime(2026, 2, 1), datetime(2026, 2, 28, 23, 59, 59)),
        ("2024-02", datetime(2024, 2, 1), datetime(2024, 2, 29, 23, 59, 59)),
        ("2025-12", datetime(2025, 12, 1), datetime(2025, 12, 31, 23, 59, 59)),
        ("2024-02-29", datetime(2024, 2, 29), datetime(2024, 2, 29, 23, 59, 59)),
        ("2026-03-02T14:05", datetime(2026, 3, 2, 14, 5), datetime(2026, 3, 2, 14, 5)),
        ("2026-03-02 14:05:09", datetime(2026, 3, 2, 14, 5, 9), datetime(2026, 3, 2, 14, 5, 9)),
        (" 2026-03-02 ", datetime(2026, 3, 2), datetime(2026, 3, 2, 23, 59, 59)),
    ],
)
def test_a_partial_date_is_the_whole_period(text, start, end):
    parsed = TimeSpan.parse(text)
    assert (parsed.start, parsed.end) == (start, end)
    assert str(parsed) == text.strip()


@pytest.mark.parametrize(
    "text",
    ["2026-02-30", "2025-02-29", "2026-13", "2026-00", "0000", "2026-04-31", "2026-03-02T24:00", "2026-03-02T10:60",
     "9999-12-31"],
)  # fmt: skip
def test_a_date_that_does_not_exist_is_refused(text):
    with pytest.raises(ValueError, match="is not a date that exists"):
        TimeSpan.parse(text)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "02.03.2026", "2026-3-2", "26-03-02", "20260302", "2026-03-02T10", "2026-03-02Z", "٢٠٢٦"]
)
def test_a_text_that_is_no_date_is_refused_with_the_forms_that_are(text):
    with pytest.raises(ValueError, match="YYYY-MM-DD"):
        TimeSpan.parse(text)


def test_the_whole_of_a_day_has_no_conflict_with_a_time_on_it():
    assert TimeSpan.of(DAY) == span("2026-03-02")
    assert not span("2026-03-02T10:00").wholly_after(span("2026-03-02"))
    assert span("2026-03-02T10:00").wholly_after(span("2026-03-02T09:00"))


@pytest.mark.parametrize(
    ("later", "earlier", "days", "expected"),
    [
        ("2026-03-02", "2026-03-01", 0, True),
        ("2026-03-02", "2026-03-02", 0, False),
        ("2026-03-01", "2026-03-02", 0, False),
        ("2026-03-09", "2026-03-02", 7, False),
        ("2026-03-10", "2026-03-02", 7, True),
        ("2026-03", "2026-03-02", 0, False),
        ("2026-04", "2026-03", 0, True),
        ("2026", "2025-12-31", 0, True),
        ("2026-03-10", "2026-03", 0, False),
    ],
)
def test_wholly_after_needs_no_overlap_and_more_days_than_the_window(later, earlier, days, expected):
    assert span(later).wholly_after(span(earlier), days) is expected


def test_days_until_is_an_interval_for_a_partial_date():
    assert span("2026-02-28").days_until(DAY) == (2, 2)
    assert span("2026-02").days_until(DAY) == (2, 29)


def test_a_period_that_reaches_past_the_date_is_cut_there_and_keeps_its_text():
    cut = span("2026-03").until(DAY)
    assert (cut.start, cut.end.date(), str(cut)) == (datetime(2026, 3, 1), DAY, "2026-03")
    assert span("2026-02").until(DAY) == span("2026-02")
    assert span("2026-04").until(DAY).end == datetime(2026, 4, 1)


@given(st.dates(date(1900, 1, 1), date(2100, 12, 31)), st.dates(date(1900, 1, 1), date(2100, 12, 31)))
def test_of_two_days_one_lies_after_the_other_or_they_are_the_same(a, b):
    first, second = TimeSpan.of(a), TimeSpan.of(b)
    assert first.wholly_after(second) is (a > b)
    assert first.days_until(b) == ((b - a).days, (b - a).days)


@given(st.dates(date(1900, 1, 1), date(2100, 12, 31)))
def test_a_day_lies_in_its_month_and_the_month_in_its_year(day):
    whole = [TimeSpan.parse(day.isoformat()[:n]) for n in (10, 7, 4)]
    for inner, outer in itertools.pairwise(whole):
        assert outer.start <= inner.start <= inner.end <= outer.end


# -- ranges

numbers = st.decimals(-20, 20, places=1)


@st.composite
def ranges(draw):
    low, high = draw(st.none() | numbers), draw(st.none() | numbers)
    if low is not None and high is not None and low > high:
        low, high = high, low
    single = low is not None and low == high
    return Range(low, high, *(bound is not None and not single and draw(st.booleans()) for bound in (low, high)))


def holds(number: Decimal, r: Range) -> bool:
    """Membership, written without the class under test."""
    above = r.low is None or number > r.low or (number == r.low and not r.low_open)
    below = r.high is None or number < r.high or (number == r.high and not r.high_open)
    return above and below


@given(ranges(), ranges(), numbers)
def test_a_number_lies_in_the_intersection_when_it_lies_in_both(a, b, number):
    common = a.intersection(b)
    assert (common is not None and holds(number, common)) == (holds(number, a) and holds(number, b))


@given(ranges(), ranges())
def test_intersection_is_commutative_and_lies_within_both(a, b):
    common = a.intersection(b)
    assert common == b.intersection(a)
    if common is not None:
        assert common.within(a)
        assert common.within(b)


@given(ranges(), ranges(), numbers)
def test_what_lies_within_shares_all_its_numbers(a, b, number):
    if a.within(b):
        assert a.intersection(b) == a
        assert not holds(number, a) or holds(number, b)


@given(ranges(), ranges(), ranges())
def test_within_is_reflexive_and_transitive(a, b, c):
    assert a.within(a)
    if a.within(b) and b.within(c):
        assert a.within(c)


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        (between(5, 5), between(5), True),
        (between(5, 5), between(5, low_open=True), False),
        (between(5, low_open=True), between(5), True),
        (between(5), between(5, low_open=True), False),
        (between(high=8), between(high=8, high_open=True), False),
        (between(high=8, high_open=True), between(high=8), True),
        (between(6, 7), between(5, 8), True),
        (between(4, 7), between(5, 8), False),
        (between(), between(0), False),
        (between(3), between(), True),
    ],
)
def test_within_looks_at_open_bounds(inner, outer, expected):
    assert inner.within(outer) is expected


def test_ranges_that_only_touch_share_a_number_when_both_are_closed_there():
    assert between(0, 5).intersection(between(5, 9)) == between(5, 5)
    assert between(0, 5, high_open=True).intersection(between(5, 9)) is None
    assert between(0, 5).intersection(between(5, 9, low_open=True)) is None
    assert between(0, 4).intersection(between(5, 9)) is None


def test_exact_is_the_one_number_of_a_range():
    assert Range.exactly(5).exact == 5
    assert between(5, 6).exact is None
    assert between(5).exact is None
    assert between().exact is None


@pytest.mark.parametrize(
    ("value", "factor", "expected"),
    [
        (between(42, 42), "0.142857142857142857", between(6, 6)),
        (between(41, 41), "0.142857142857142857", between("5.8571", "5.8571")),
        (between(210000, 210000), "0.001", between(210, 210)),
        (between(1, None, low_open=True), "7", between(7, None, low_open=True)),
        (between(None, "1e25"), "7", between(None, "7e25")),
    ],
)
def test_another_unit_keeps_open_bounds_and_four_decimal_places(value, factor, expected):
    assert value.scaled(Decimal(factor)) == expected


@given(st.integers(0, 5000))
def test_days_in_weeks_are_whole_exactly_at_seven(days):
    weeks = Range.exactly(days).scaled(Decimal("0.142857142857142857")).exact
    assert weeks == round(Decimal(days) / 7, 4)
    assert (weeks == weeks.to_integral_value()) is (days % 7 == 0)


def test_a_shifted_range_is_as_wide_as_what_was_added():
    assert between(5, 5).shifted(Decimal(1), Decimal(3)) == between(6, 8)
    assert between(None, 5, high_open=True).shifted(Decimal(1), Decimal(3)) == between(None, 8, high_open=True)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (between(5, 5), "5"),
        (between(5), ">= 5"),
        (between(5, low_open=True), "> 5"),
        (between(None, 5), "<= 5"),
        (between(None, 5, high_open=True), "< 5"),
        (between(5, 8), "5 to 8"),
        (between(5, 8, high_open=True), "5 to 8 (excl.)"),
        (between(), "any"),
    ],
)
def test_a_range_in_words(value, words):
    assert str(value) == words


@pytest.mark.parametrize(
    ("values", "top"),
    [
        ([between(5, 5), between(9, 9)], between(9, 9)),
        ([between(10), between(80, 80)], between(80)),
        ([between(None, 40), between(30, 50)], between(30, 50)),
        ([between(None, 20), between(None, 40)], between(None, 40)),
        ([between(5, 8, low_open=True), between(5, 8, high_open=True)], between(5, 8, low_open=True)),
        ([between()], between()),
    ],
)
def test_the_highest_of_ranges_is_known_as_far_as_they_say(values, top):
    assert highest(values) == top
    lowest = highest([v.negated() for v in values]).negated()
    assert all(lowest.low is None or v.low is None or lowest.low <= v.low for v in values)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 5)), min_size=1, max_size=4), st.data())
def test_the_highest_of_any_choice_of_values_lies_in_the_highest_of_the_ranges(pairs, data):
    chosen = [low + data.draw(st.integers(0, width)) for low, width in pairs]
    assert Range.exactly(max(chosen)).within(highest([between(low, low + width) for low, width in pairs]))


# -- facts and sources


def test_a_source_cites_its_document_before_the_line_it_was_read_from():
    cited = Source("file.yaml:7", document="MRI report", date="2026-02-10", author="Radiology", quote="oedema of T4")
    assert str(cited) == "MRI report, 2026-02-10, Radiology: “oedema of T4”"
    assert str(Source("file.yaml:7")) == "file.yaml:7"


def test_a_fact_is_a_confirmed_observation_unless_it_says_otherwise():
    plain = Fact("patient", "https://w3id.org/kypho#Pregnancy")
    assert (plain.mood, plain.polarity, plain.status, plain.time) == ("observed", "present", "confirmed", None)
