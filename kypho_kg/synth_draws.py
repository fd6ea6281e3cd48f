"""Distributions as tables, and random numbers that depend on nothing but the seed, the name of a draw and the patient.

A distribution is a list of the values that can occur with their cumulated probabilities, so that one uniform number
picks a value. Numbers are counted in millionths, so that they are whole.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MICRO = 1_000_000
"""Numbers are counted in millionths, as in the fact table."""
SLOTS = 4
"""Uniform numbers of one patient in one stream: one for each of its lesions, or for as many purposes."""
LARGEST = 200_000
"""Values of a distribution."""


def uniforms(seed: int, stream: str, first: int, count: int) -> Floats:
    """Uniform numbers in [0, 1) for the patients from ``first`` on, one row of :data:`SLOTS` for each.

    A counter-based generator (Philox): the row of a patient does not depend on which others are asked for.
    """
    key = np.array([seed, zlib.crc32(stream.encode()) + (len(stream) << 32)], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key, counter=first))
    return generator.random(count * SLOTS).reshape(count, SLOTS)


@dataclass(frozen=True, slots=True)
class Table:
    """A distribution over whole numbers: millionths, codes of words, or 1 and 0 for present and absent."""

    values: Ints
    cumulated: Floats

    def pick(self, u: Floats) -> Ints:
        """The value for each uniform number."""
        place = np.searchsorted(self.cumulated, u, side="right")
        return self.values[np.minimum(place, len(self.values) - 1)]


@dataclass(frozen=True, slots=True)
class Linear:
    """So many times another draw, with something added, rounded to a step and held within limits."""

    of: str
    times: float
    plus: Table | None
    low: int
    high: int
    step: int

    def of_values(self, base: Ints, u: Floats) -> Ints:
        """The values, given those of the other draw."""
        raw = base * self.times + (self.plus.pick(u) if self.plus else 0)
        stepped = np.rint(raw / self.step).astype(np.int64) * self.step
        return np.clip(stepped, self.low, self.high)


Distribution = Table | Linear


def table(values: Sequence[int], weights: Sequence[float]) -> Table:
    """A distribution from values and weights.

    :raises ValueError: for weights that are negative, no numbers, or all zero.
    """
    w = np.asarray(weights, dtype=np.float64)
    if not len(w) or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise ValueError("weights must not be negative, and not all zero")
    return Table(np.asarray(values, dtype=np.int64), np.cumsum(w) / w.sum())


def grid(low: Decimal, high: Decimal, step: Decimal) -> list[Decimal]:
    """The values from ``low`` to ``high``.

    :raises ValueError: when there is none, or there are too many.
    """
    if step <= 0 or low > high:
        raise ValueError("min must not lie above max, and step must be positive")
    count = int((high - low) / step) + 1
    if count > LARGEST:
        raise ValueError(f"min to max holds {count:,} steps, at most {LARGEST:,} can be")
    return [low + step * i for i in range(count)]


def whole(number: Decimal) -> int:
    """A number in millionths.

    :raises ValueError: when it has more decimal places.
    """
    scaled = number * MICRO
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{number} has more than six decimal places")
    return int(scaled)


def from_cdf(values: Sequence[Decimal], step: Decimal, cdf: Callable[[float], float]) -> Table:
    """The probability of each step of a continuous distribution, cut off at both ends.

    :raises ValueError: when none of it lies within.
    """
    reach = float(step) / 2
    return table([whole(v) for v in values], [cdf(float(v) + reach) - cdf(float(v) - reach) for v in values])


def gaussian(n: Mapping[str, Decimal]) -> Table:
    """A truncated Gaussian distribution: ``mean``, ``sd``, ``min``, ``max``, ``step``."""
    mean, sd = float(n["mean"]), float(n["sd"])
    if sd <= 0:
        raise ValueError("sd must be positive")
    return from_cdf(grid(n["min"], n["max"], n["step"]), n["step"], lambda x: _phi((x - mean) / sd))


def lognormal(n: Mapping[str, Decimal]) -> Table:
    """A truncated lognormal distribution: ``median``, ``sigma`` of the logarithm, ``min``, ``max``, ``step``."""
    median, sigma = float(n["median"]), float(n["sigma"])
    if sigma <= 0 or median <= 0:
        raise ValueError("median and sigma must be positive")

    def cdf(x: float) -> float:
        return _phi(math.log(x / median) / sigma) if x > 0 else 0.0

    return from_cdf(grid(n["min"], n["max"], n["step"]), n["step"], cdf)


def uniform(n: Mapping[str, Decimal]) -> Table:
    """Each of ``min`` to ``max`` in steps of ``step`` alike."""
    values = grid(n["min"], n["max"], n["step"])
    return table([whole(v) for v in values], [1.0] * len(values))


def poisson(n: Mapping[str, Decimal]) -> Table:
    """A truncated Poisson distribution: ``mean``, ``min``, ``max``."""
    mean = float(n["mean"])
    if mean <= 0:
        raise ValueError("mean must be positive")
    values = grid(n["min"], n["max"], Decimal(1))
    return table([whole(v) for v in values], [_poisson(mean, int(v)) for v in values])


def _poisson(mean: float, count: int) -> float:
    return math.exp(count * math.log(mean) - mean - math.lgamma(count + 1)) if count >= 0 else 0.0


def _phi(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))
