"""A packet as one page to print: it needs nothing else, and reads in black and white."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kypho_kg.coverage import coverage_line
from kypho_kg.knowledge import Knowledge
from kypho_kg.packet import AFTER, BEFORE, STATEMENT, Check, Packet, Point, PolicyPart, Section, Stance
from kypho_kg.packet_header import Filled
from kypho_kg.reasons import Standing, standing
from kypho_kg.record import PATIENT, PROCEDURE, Cause, Fact, Mood, Range, Status
from kypho_kg.report import DISCLAIMER, level_words
from kypho_kg.templating import css_text, template
from kypho_kg.vocabulary import KYPHO
from kypho_kg.words import fact_in_short, unit_words, value_words

_MEANING = {
    Stance.SATISFIED: ("yes", "in order"),
    Stance.AGAINST: ("no", "stands against"),
    Stance.CAUTION: ("caution", "caution"),
    Stance.OPEN: ("open", "still open"),
    Stance.NOTE: ("note", "for information"),
}
"""Shape and words of the mark of a line."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A fact as two lines: what is said, and where."""

    words: str
    where: str
    quote: str
    premises: tuple[Evidence, ...]


def packet_html(packet: Packet, software: str) -> str:
    """A packet as an HTML document.

    :param software: name and version of the program, for the foot of the page.
    """
    k = packet.knowledge
    groups: dict[str, list[Filled]] = {}
    for filled in packet.header:
        groups.setdefault(filled.field.group, []).append(filled)
    running = f"Patient {packet.record.patient} · prior authorization packet · as of {packet.as_of}"
    return template("packet.html.jinja").render(
        p=packet,
        k=k,
        groups=groups,
        statement=STATEMENT,
        disclaimer=DISCLAIMER,
        software=software,
        coverage=coverage_line(k, [packet.record]),
        running=css_text(running),
        meaning=_MEANING,
        before=BEFORE,
        after=AFTER,
        service=_service(packet),
        effect=lambda c: k.plain(KYPHO + c.clause.recommendation.effect),
        mark=lambda c: k.plain(KYPHO + c.clause.recommendation.mark),
        layer=lambda g: k.plain(KYPHO + g.layer),
        time=lambda name: k.label(KYPHO + name),
        level=lambda s: level_words(k, s.case) or "level not known",
        evidence=lambda f: _evidence(k, f),
        needed=lambda s: list(_needed(k, s)),
        subject=lambda s: "" if s in {PATIENT, PROCEDURE} else f"lesion {s.partition(':')[2]}",
        deciding=_deciding,
        beside=_beside,
        distance=lambda point: _distance(k, point),
        bridges=lambda s: _bridges(k, s),
        picked=_picked,
    )


def _service(packet: Packet) -> str:
    """By what the policies were picked: state, payer, place and date of service, as far as they are known."""
    shown = {f.field.key: f for f in packet.header}
    keys = ("service.state", "service.payer", "service.place", "service.date")
    return " · ".join(
        f"{shown[key].field.label}: {', '.join(shown[key].values) or 'not known'}" for key in keys if key in shown
    )


def _picked(part: PolicyPart) -> str:
    """Why a policy is in the packet."""
    if not part.named:
        return "in force for this state, payer, place and date of service"
    force = {True: "in force", False: "not in force", None: "it is not known whether it is in force"}
    return f"named by the user; {force[part.in_force]} for this service"


def _deciding(check: Check) -> list[Point]:
    """What the truth of a clause rests on; where it is open, what keeps it open."""
    return [p for p in check.points if p.decides]


def _beside(check: Check) -> list[Point]:
    """What else of a clause is on record."""
    return [p for p in check.points if not p.decides and p.proof.facts]


def _evidence(k: Knowledge, fact: Fact) -> Evidence:
    """A fact with its time, document, author and place."""
    said = fact.source
    document = ", ".join(filter(None, (said.document, said.date and f"dated {said.date}", said.author)))
    how, words = standing(k, fact), fact_in_short(k, fact)
    parts = [
        f"of {fact.time}" if fact.time else "" if fact.rule else "stated as current",
        "" if fact.mood is Mood.OBSERVED else str(fact.mood),
        "" if how is Standing.ASSERTED else str(how),
        "" if fact.status is Status.CONFIRMED or str(fact.status) in words else str(fact.status),
        document,
        said.origin,
    ]
    where = " · ".join(filter(None, parts))
    return Evidence(words, where, said.quote, tuple(_evidence(k, p) for p in fact.premises))


def _distance(k: Knowledge, point: Point) -> str:
    """How far a number is from the limit, in words; nothing for what is no number."""
    leaf = point.proof
    if leaf.distance is None:
        return ""
    unit = unit_words(k.features[leaf.criterion.term])
    if not leaf.distance:
        return "just at the limit"
    number = value_words(k, Range.exactly(abs(leaf.distance)))
    return f"{number}{unit} {'within' if leaf.distance > 0 else 'beyond'} the limit"


def _needed(k: Knowledge, section: Section) -> Iterator[tuple[str, str, bool]]:
    """What to find out or to document, how, for which clauses, and whether it settles the matter."""
    for wanting in section.wanting:
        n = wanting.need
        why = [k.plain(KYPHO + c) for c in n.causes if c is not Cause.NOT_RECORDED]
        clauses = ", ".join(c.partition("/")[2] for c in n.clauses)
        how = n.acquisition if n.obtainable else "cannot be assessed"
        yield k.plain(n.feature), " · ".join(filter(None, (how, *why, f"for {clauses}"))), wanting.settles


def _bridges(k: Knowledge, section: Section) -> list[str]:
    """The rules by which one feature counted as another, with their source."""
    return [f"{k.bridges[name].label} ({k.bridges[name].citation})" for name in section.assessment.bridges]
