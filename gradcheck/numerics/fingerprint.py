"""What a wrong gradient equals instead: the right one times a constant, or its entries in another order.

Each is a hypothesis, stated only if it holds along every probe, within the reference's own bound. The probes are those that
showed the mismatch and one more, so that none of them was used to find the hypothesis alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

RELATIVE = 1e-6  # of the norm of gradient * direction: how well a hypothesis has to hold beyond the reference's bound


@dataclass(frozen=True, slots=True)
class Probe:
    """One direction with its reference. dot: (g . v, norm of g * v) of any array of the gradient's shape."""

    dot: Callable[[NDArray[Any]], tuple[float, float]]
    value: float
    bound: float

    def agrees(self, array: NDArray[Any], factor: float = 1.0, times: float = 1.0) -> bool:
        """Whether array / factor is right along this probe, to `times` what has to be granted."""
        total, norm = self.dot(array)
        return abs(total / factor - self.value) <= times * (self.bound + RELATIVE * norm / abs(factor))


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """kind: "factor" or "order". factor: analytic over right. words: what it equals. error: largest relative miss, proven."""

    kind: str
    factor: float
    words: str
    error: float

    def corrected(self, array: NDArray[Any]) -> NDArray[Any]:
        """The right gradient, if this is what the wrong one equals."""
        if self.kind == "factor":
            return array / self.factor
        return next(other for words, other in orders(array) if words == self.words)


def recognise(array: NDArray[Any], probes: Sequence[Probe], fresh: Callable[[], Probe]) -> Fingerprint | None:
    """The first hypothesis that two probes or more bear out, and then one that had no part in finding it; or None.

    fresh: measures that one; called once at most, and only if there is a hypothesis.
    """
    if len(probes) < 2 or not np.isfinite(array).all() or not array.any():
        return None
    if any(p.agrees(array, times=10) for p in probes):
        return None  # an error this small would let many hypotheses through
    last: list[Probe] = []

    def holds(candidate: NDArray[Any], factor: float, known: Sequence[Probe]) -> bool:
        if not all(p.agrees(candidate, factor) for p in known):
            return False
        if not last:
            last.append(fresh())
        return last[0].agrees(candidate, factor)

    factor = common_factor(array, probes)
    if factor is not None and holds(array, factor, probes[1:]):
        return Fingerprint("factor", factor, "", miss(array, [*probes, *last], factor))
    for words, other in orders(array):
        if holds(other, 1.0, probes):
            return Fingerprint("order", 1.0, words, miss(other, [*probes, *last], 1.0))
    return None


def common_factor(array: NDArray[Any], probes: Sequence[Probe]) -> float | None:
    """Analytic over right along the first probe, if both are accurate enough there to tell."""
    total, _ = probes[0].dot(array)
    known = array.size > 1 and total and abs(probes[0].value) > 100 * probes[0].bound
    return total / probes[0].value if known else None


def miss(array: NDArray[Any], probes: Sequence[Probe], factor: float) -> float:
    """The largest error of a hypothesis along the probes, relative to the gradient's size."""
    found = [(p.dot(array), p.value) for p in probes]
    return max(abs(total / factor - value) / (norm / abs(factor) or 1.0) for (total, norm), value in found)


def orders(array: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """The array with its entries in other orders, each with a name of its own. Only orders that differ from the given one."""
    candidates: list[tuple[str, NDArray[Any]]] = []
    for one, other in combinations(range(array.ndim), 2):
        if array.shape[one] == array.shape[other]:
            candidates.append((f"transposed (axes {one} and {other})", np.swapaxes(array, one, other)))
    if array.ndim >= 2:
        candidates.append(("stored in column order", array.reshape(-1).reshape(array.shape, order="F")))
        candidates.append(("filled in column order", array.reshape(-1, order="F").reshape(array.shape)))
    for axis in range(array.ndim):
        candidates.append((f"reversed along axis {axis}", np.flip(array, axis)))
        candidates.append((f"shifted back by one along axis {axis}", np.roll(array, 1, axis)))
        candidates.append((f"shifted by one along axis {axis}", np.roll(array, -1, axis)))
    yield from ((words, other) for words, other in candidates if not np.array_equal(other, array))


def name_factor(factor: float, sizes: dict[str, int], tolerance: float = 1e-5) -> str:
    """What a factor equals: -1, 2, 1/2, a size of the case or its inverse; "" if nothing is that close."""
    known = {"-1 (the sign)": -1.0, "2": 2.0, "1/2": 0.5}
    known |= {name: float(size) for name, size in sizes.items() if size > 1}
    known |= {f"1/{name}": 1.0 / size for name, size in sizes.items() if size > 1}
    return " or ".join(name for name, value in known.items() if abs(factor / value - 1) <= tolerance)
