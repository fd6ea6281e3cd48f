"""The drawing of a spine from the side as data: where each vertebra lies, and what is marked on it."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kypho_kg.candidacy import Assessment, CaseAnswer
from kypho_kg.evaluation import lesion_subject
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import LESION
from kypho_kg.report import level_words
from kypho_kg.verdicts import UNDETERMINED
from kypho_kg.vocabulary import KYPHO
from kypho_kg.words import said

BADGES: Mapping[str, tuple[str, str]] = {
    "Candidate": ("Y", "yes"), "CandidateWithCaution": ("C", "caution"), "CandidateScreeningOpen": ("S", "screen"),
    "NotIndicated": ("N", "no"), "Contraindicated": ("X", "contra"), UNDETERMINED: ("?", "open"),
    "Rated": ("R", "rated"), "NoVerdict": ("i", "none"), "NotApplicable": ("-", "none"),
}  # fmt: skip
"""Letter and tone of each verdict."""
CEMENT = "cement"
"""The mark, by ``kypho:drawnAs``, of findings that are drawn as an earlier filling of a vertebra."""
CENTRE, WIDTH, TRAY = 64.0, 148.0, 26.0
"""Across: the middle of the column, the width, and what the tray adds to it."""
TOP, GAP, BETWEEN = 8.0, 1.8, 3.0
"""Down: above the first vertebra, between two of them, and more between two regions."""
SWAY = 0.09
"""How far a region bows, as a part of its length."""
LONGEST = 10
"""Letters of a lesion's name that are drawn; the whole name stands in the text beside."""
_TRAY_ROW = 34.0


@dataclass(frozen=True, slots=True)
class Vertebra:
    """The body of one vertebra: its middle, its size and how far it leans, in degrees."""

    iri: str
    label: str
    x: float
    y: float
    width: float
    tall: float
    lean: float


@dataclass(frozen=True, slots=True)
class Mark:
    """What one guideline says of one lesion, and where that lies."""

    lesion: str
    levels: frozenset[str]
    """The levels of which it has one; empty where nothing is known."""
    where: str
    """The level in words, empty where nothing is known."""
    letter: str
    tone: str
    words: str
    cement: str = ""
    """The finding that is drawn as earlier cement, in words."""

    @property
    def name(self) -> str:
        """The name of the lesion, short enough for the drawing."""
        return self.lesion if len(self.lesion) <= LONGEST else self.lesion[: LONGEST - 1] + "…"

    @property
    def told(self) -> str:
        """The mark as a sentence."""
        cement = f"; {CEMENT}: {self.cement}" if self.cement else ""
        return f"{self.where or 'level not known'}, lesion {self.lesion}: {self.words}{cement}"


@dataclass(frozen=True, slots=True)
class Strip:
    """The part of a vertebra that one lesion fills, from its left edge as seen from the middle of the body."""

    mark: Mark
    left: float
    width: float


@dataclass(frozen=True, slots=True)
class Place:
    """A vertebra with what is marked on it."""

    vertebra: Vertebra
    strips: tuple[Strip, ...]
    maybe: bool
    """Whether a lesion may lie here or elsewhere."""

    @property
    def tag(self) -> str:
        """The lesions that lie here."""
        return ", ".join(s.mark.name for s in self.strips)


@dataclass(frozen=True, slots=True)
class Drawing:
    """One spine with the marks of one guideline."""

    places: tuple[Place, ...]
    tray: tuple[tuple[float, Mark], ...]
    """The lesions that lie at no one level that is known, each with its place from the top."""
    width: float
    tall: float


@functools.cache
def column(k: Knowledge) -> tuple[Vertebra, ...]:
    """All levels of the ontology from top to bottom, bowed to and fro by region; the last region tapers."""
    levels = sorted(k.by_name["vertebralLevel"].values, key=k.level_order)
    regions: dict[str, list[str]] = {}
    for level in levels:
        regions.setdefault(k.triples.resource(level, KYPHO + "inRegion") or "", []).append(level)
    found: list[Vertebra] = []
    top = TOP
    for i, (region, some) in enumerate(regions.items()):
        last = i == len(regions) - 1 and i > 0
        sizes = [_size(len(found) + n, len(levels), n if last else None) for n in range(len(some))]
        span = sum(tall + GAP for _, tall in sizes)
        bow, y = (SWAY if i % 2 else -SWAY) * span, top
        for level, (width, tall) in zip(regions[region], sizes, strict=True):
            middle = y + tall / 2
            part = math.pi * (middle - top) / span
            lean = -math.degrees(math.atan(bow * math.pi / span * math.cos(part)))
            x = CENTRE + bow * math.sin(part)
            found.append(Vertebra(level, k.label(level), *(round(v, 1) for v in (x, middle, width, tall, lean))))
            y += tall + GAP
        top += span + BETWEEN
    return tuple(found)


def _size(place: int, of: int, in_last: int | None) -> tuple[float, float]:
    """Width and tall of a body: they grow downwards, and in the last region shrink."""
    part = place / of
    width, tall = 20 + 18 * part, 10 + 6.5 * part
    return (width, tall) if in_last is None else (width - 5 * in_last - 2, 10.0)


def draw(k: Knowledge, marks: Sequence[Mark]) -> Drawing:
    """A spine with its marks; a lesion at one known level fills the vertebra, any other lies in the tray."""
    exact = [m for m in marks if len(m.levels) == 1]
    loose = [m for m in marks if len(m.levels) != 1]
    maybe = {level for m in loose for level in m.levels}
    places = []
    for v in column(k):
        here = [m for m in exact if v.iri in m.levels]
        wide = v.width / max(len(here), 1)
        strips = tuple(Strip(m, round(-v.width / 2 + i * wide, 1), round(wide, 1)) for i, m in enumerate(here))
        places.append(Place(v, strips, v.iri in maybe))
    tray = tuple((TOP + 5 + i * _TRAY_ROW, m) for i, m in enumerate(loose))
    bottom = places[-1].vertebra.y + places[-1].vertebra.tall if places else TOP
    tall = max(bottom, tray[-1][0] + _TRAY_ROW if tray else 0.0)
    return Drawing(tuple(places), tray, WIDTH + (TRAY if tray else 0), round(tall, 1))


def badge(a: Assessment) -> tuple[str, str]:
    """Letter and tone; a panel that rated nothing of what is proposed gives no verdict."""
    return BADGES["NoVerdict" if a.verdict == "Rated" and not a.categories else a.verdict]


def mark(k: Knowledge, case: CaseAnswer, a: Assessment) -> Mark:
    """What a source says of a lesion, to be drawn."""
    words = level_words(k, case), *badge(a), said(a), earlier_cement(k, case)
    return Mark(case.lesion.id, levels_of(k, case), *words)


def levels_of(k: Knowledge, case: CaseAnswer) -> frozenset[str]:
    """The levels of which the lesion has one; empty where nothing is recorded, or any will do."""
    feature = k.by_name["vertebralLevel"]
    value = case.snapshot.value(LESION + case.lesion.id, feature.iri).value
    return value if isinstance(value, frozenset) and value != feature.values else frozenset()


def earlier_cement(k: Knowledge, case: CaseAnswer) -> str:
    """The finding of the lesion that the ontology wants drawn as earlier cement, in words; empty for none."""
    return next(_cement(k, case), "")


def _cement(k: Knowledge, case: CaseAnswer) -> Iterator[str]:
    drawn = [c for c in k.features if k.triples.text(c, KYPHO + "drawnAs") == CEMENT]
    for fact in case.snapshot.present.get(lesion_subject(case.lesion.id), ()):
        yield from (k.plain(fact.feature) for c in drawn if k.subsumes(c, fact.feature))
