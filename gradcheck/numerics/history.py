"""Which of T time steps' contributions to a derivative are wrong, from few differences over many steps at once.

The analytic side is one number a step. What it is held against is a difference along any weights of the steps, at a cost that
does not depend on how many steps have a weight. So cheap hypotheses come first: all steps from some boundary on are right
(the analytic zeros say where, or bisection does), or a single step is wrong (its index comes out of weights that spell it).
A step is called right on the strength of a joint difference only if the weights were fresh, random in sign and size, and the
difference is sharp enough for the smallest contribution among them. Whatever no hypothesis covers is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradcheck._backends._worker import directions
from gradcheck.numerics import localise

Floats = NDArray[np.float64]

RIGHT, WRONG, MISSING, NOTHING, UNKNOWN = "right", "wrong", "missing", "no contribution", "not judged"
BAD = (WRONG, MISSING)
EACH = 64  # steps that are looked at one by one; more are looked at in as many even blocks
SHARP = 1e-2  # of the smallest contribution covered: an error of this size must show
FLOOR = 100.0  # times rtol, of the largest contribution: smaller errors are no business of anyone


@dataclass(frozen=True, slots=True)
class Seen:
    """One difference: analytic and reference value along some weights, what they may differ by, and what is sharp enough."""

    analytic: float
    value: float
    allowed: float
    sharp: float

    @property
    def error(self) -> float:
        return self.analytic - self.value

    @property
    def wrong(self) -> bool:
        return bool(abs(self.error) > self.allowed)

    @property
    def right(self) -> bool:
        return bool(abs(self.error) <= self.allowed <= self.sharp)


@dataclass(frozen=True, slots=True)
class History:
    """cells: one word a step. probes: how many differences it took to know where the bad steps end (or which one it is)."""

    cells: tuple[str, ...]
    probes: int

    @property
    def bad(self) -> list[int]:
        return [t for t, cell in enumerate(self.cells) if cell in BAD]

    @property
    def missing_before(self) -> int | None:
        """The step k before which all that contributes is missing and from which on all is right; None if that is not so."""
        if not self.bad or self.bad[-1] == len(self.cells) - 1:
            return None
        k = self.bad[-1] + 1
        cut = set(self.cells[:k]) <= {MISSING, NOTHING} and set(self.cells[k:]) <= {RIGHT, NOTHING}
        return k if cut and RIGHT in self.cells else None


class Search:
    """analytic: float64[T]. differ: (value, bound) along weights float64[T], to within about `enough`. rtol: what the analytic
    side may be off, relative to the norm of the weighted contributions. spread: float64[n, T], how far
    rounding alone may move the contributions (float32). key: of the random weights.
    """

    def __init__(
        self,
        analytic: Floats,
        differ: Callable[[Floats, float], tuple[float, float]],
        rtol: float,
        key: int,
        spread: Floats | None = None,
    ) -> None:
        self.analytic, self.differ, self.rtol, self.key = analytic, differ, rtol, key
        self.spread = np.zeros((1, analytic.size)) if spread is None else spread
        self.steps = analytic.size
        self.largest = float(np.abs(analytic).max(initial=0.0))
        self.probes = self.drawn = 0

    def run(self, total: tuple[float, float] | None = None) -> History | None:
        """One word a step, or None if no step is seen to be wrong. total: (value, bound) along weights of 1, if it is known."""
        plain = np.ones(self.steps) if total else self.fresh(0, self.steps)
        whole = self.seen(plain, *total) if total else self.look(plain)
        if not whole.wrong:
            return None
        lone = self.lone(plain, whole) if self.zeros_before() < 2 else None  # 1: a carry that starts at 0, most likely
        if lone is not None:
            cells = self.jointly(0, self.steps)
            cells[lone] = self.bad_word(slice(lone, lone + 1))
            return History(tuple(cells), self.probes)
        k = self.zeros_before()
        if k > 1 and self.look(self.fresh(k, self.steps)).right:
            return self.before(k)
        boundary = self.bisected(k)
        return self.before(boundary, known=self.probes)

    def bisected(self, low: int) -> int:
        """From which step on all are right; T if none are. The step before it is then wrong, as the difference of two probes."""
        high = self.steps  # steps from `high` on are right; those from `low` on are not all
        while high - low > 1:
            middle = (low + high) // 2
            if self.look(self.fresh(middle, self.steps)).right:
                high = middle
            else:
                low = middle
        return high

    def zeros_before(self) -> int:
        """How many steps at the beginning have no analytic contribution at all; 0 if no step has one."""
        return int(np.argmax(self.analytic != 0)) if self.largest else 0

    def before(self, boundary: int, known: int = 0) -> History | None:
        """Look at what lies before the boundary, the last step first. known: after how many probes that one was seen to be wrong,
        0 if it was not.
        """
        cells = [UNKNOWN] * boundary + self.jointly(boundary, self.steps)
        settled = 0
        for group in reversed(np.array_split(np.arange(boundary), min(boundary, EACH))):
            start, stop = int(group[0]), int(group[-1]) + 1
            cells[start:stop] = [self.word(start, stop)] * len(group)
            if not settled and cells[start] in BAD:
                settled = known if known and stop == boundary else self.probes
        return History(tuple(cells), settled) if settled else None

    def lone(self, plain: Floats, whole: Seen) -> int | None:
        """The only wrong step: the digits of its index scale its error, and the others are jointly right. Else None."""
        base = localise.base_for(self.steps, whole.error, whole.allowed)
        if base is None:
            return None
        index = 0
        for m in range(localise.digits_needed(self.steps, base)):
            seen = self.look(plain * (np.arange(self.steps) // base**m % base) / (base - 1))
            ratio = seen.error / whole.error
            slack = (seen.allowed + abs(ratio) * whole.allowed) / abs(whole.error)
            digit = round(ratio * (base - 1)) if np.isfinite(ratio) else -1
            if not 0 <= digit < base or abs(ratio * (base - 1) - digit) > min(0.3, (base - 1) * slack):
                return None
            index += digit * base**m
        if index >= self.steps:
            return None
        others = self.fresh(0, self.steps)
        others[index] = 0.0
        return index if self.look(others).right else None

    # -- one difference ----------------------------------------------------------------------------------------------

    def fresh(self, start: int, stop: int) -> Floats:
        """Weights that were never used before: random in sign and size over [start, stop), 0 elsewhere."""
        self.drawn += 1
        weights = np.zeros(self.steps)
        weights[start:stop] = directions.expand(self.key + self.drawn, start, stop)
        return weights

    def look(self, weights: Floats) -> Seen:
        self.probes += 1
        return self.seen(weights, *self.differ(weights, 0.5 * self.sharp(weights)))

    def seen(self, weights: Floats, value: float, bound: float) -> Seen:
        tolerance = self.rtol * float(np.linalg.norm(weights * self.analytic))
        tolerance += float(np.abs(self.spread @ weights).max()) + 1e-6 * self.rtol * self.largest
        return Seen(float(weights @ self.analytic), value, bound + tolerance, self.sharp(weights))

    def sharp(self, weights: Floats) -> float:
        """How small an error has to show for all steps with a weight to be called right."""
        sizes = np.abs(self.analytic[(weights != 0) & (self.analytic != 0)])
        return float(max(SHARP * sizes.min(initial=np.inf if sizes.size else 0.0), FLOOR * self.rtol * self.largest))

    def word(self, start: int, stop: int) -> str:
        """The word for the steps [start, stop), from one difference over them."""
        seen = self.look(self.fresh(start, stop))
        if seen.wrong and np.isfinite(seen.allowed):
            return self.bad_word(slice(start, stop))
        if not seen.right:
            return UNKNOWN
        return RIGHT if self.analytic[start:stop].any() else NOTHING

    def bad_word(self, steps: slice) -> str:
        return WRONG if self.analytic[steps].any() else MISSING

    def jointly(self, start: int, stop: int) -> list[str]:
        """The words for steps that are right: which of them contribute is the analytic side's to say."""
        return [RIGHT if contribution else NOTHING for contribution in self.analytic[start:stop]]
