"""What a wrong gradient equals instead: the right one times a constant, in another order, summed over an axis, or rounded.

Each is a hypothesis, stated only if it holds along every probe, within the reference's own bound. The probes are those that
showed the mismatch and one more, so that none of them was used to find the hypothesis alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

RELATIVE = 1e-6  # of the norm of gradient * direction: how well a hypothesis has to hold beyond the reference's bound
Array = NDArray[np.floating]  # of the gradient's own dtype

# format -> (bits of the mantissa, bits that some entries must need: what needs fewer has them in any format)
PRECISIONS = {"bfloat16": (8, 6), "float16": (11, 8), "float32": (24, 17)}
TELLING = 4  # so many different entries have to need them, or half of a small tensor's
LOSS_SCALES = range(3, 25)  # powers of two by which a loss in a low precision is scaled


@dataclass(frozen=True, slots=True)
class Probe:
    """One direction with its reference. dot: (g . v, norm of g * v, sum of its sizes) of any array of the gradient's shape."""

    dot: Callable[[Array], tuple[float, float, float]]
    value: float
    bound: float

    def agrees(self, array: Array, factor: float = 1.0, times: float = 1.0) -> bool:
        """Whether array / factor is right along this probe, to `times` what has to be granted."""
        total, norm, _ = self.dot(array)
        return abs(total / factor - self.value) <= times * (self.bound + RELATIVE * norm / abs(factor))

    def rounds_to(self, array: Array, bits: int) -> bool:
        """Whether the array is off along this probe by no more than if each of its entries was rounded to so many bits."""
        total, _, size = self.dot(array)
        return abs(total - self.value) <= self.bound + 1.001 * 2.0**-bits * size


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """kind: "factor", "order" (which may be times a factor, too), "sum" or "precision". factor: analytic over right.

    words: what it equals. error: largest relative miss, proven.
    """

    kind: str
    factor: float
    words: str
    error: float

    @property
    def tells_all(self) -> bool:
        """Whether it says what every entry should be."""
        return self.kind in ("factor", "order")

    def corrected(self, array: Array) -> Array:
        """The right gradient, if this is what the wrong one equals and if it tells."""
        if self.kind == "order":
            array = next(other for words, other in orders(array) if words == self.words)
        return array / self.factor


@dataclass(frozen=True, slots=True)
class Fresh:
    """How further probes are measured. along: salt, and axes along which the direction does not change -> the probe."""

    along: Callable[[str, Sequence[int]], Probe]
    axes: bool = True  # whether directions can be kept from changing along axes


def recognise(array: Array, probes: Sequence[Probe], fresh: Fresh) -> Fingerprint | None:
    """The first hypothesis that two probes or more bear out, and then one that had no part in finding it; or None.

    fresh: measures that one; called only if there is a hypothesis.
    """
    if len(probes) < 2 or not np.isfinite(array).all() or not array.any():
        return None
    last: list[Probe] = []

    def one_more() -> Probe:
        if not last:
            last.append(fresh.along("recognise", ()))
        return last[0]

    lower = precision(array)
    bits = PRECISIONS[lower][0] if lower else 0
    if lower and all(p.rounds_to(array, bits) for p in probes) and one_more().rounds_to(array, bits):
        return Fingerprint("precision", 1.0, lower, miss(array, [*probes, *last], 1.0))
    if any(p.agrees(array, times=10) for p in probes):
        return None  # an error this small would let many hypotheses through

    def holds(candidate: Array, factor: float, known: Sequence[Probe]) -> bool:
        return all(p.agrees(candidate, factor) for p in known) and one_more().agrees(candidate, factor)

    factor = common_factor(array, probes)
    if factor is not None and holds(array, factor, probes[1:]):
        return Fingerprint("factor", factor, "", miss(array, [*probes, *last], factor))
    found = list(orders(array))
    for words, other in found:
        if holds(other, 1.0, probes):
            return Fingerprint("order", 1.0, words, miss(other, [*probes, *last], 1.0))
    for words, other in found:
        factor = common_factor(other, probes)
        if factor is not None and holds(other, factor, probes[1:]):
            return Fingerprint("order", factor, words, miss(other, [*probes, *last], factor))
    return summed(array, fresh) if fresh.axes else None


def summed(array: Array, fresh: Fresh) -> Fingerprint | None:
    """Entries that are all alike along some axes: the sum or the mean of the right ones? Directions that do not change along
    these axes tell, and two of them have to.
    """
    axes = [a for a, n in enumerate(array.shape) if n > 1 and not (array - array.take([0], a)).any()]
    if not axes:
        return None
    count = int(np.prod([array.shape[a] for a in axes]))
    known = [fresh.along(f"alike {k}", axes) for k in range(2)]
    for name, factor in (("sum", float(count)), ("mean", 1.0)):
        if all(p.agrees(array, factor) and abs(p.value) > 100 * p.bound for p in known):
            along = "axis" if len(axes) == 1 else "axes"
            words = f"the {name} over {along} {' and '.join(map(str, axes))}"
            return Fingerprint("sum", factor, words, miss(array, known, factor))
    return None


def common_factor(array: Array, probes: Sequence[Probe]) -> float | None:
    """Analytic over right along the first probe, if both are accurate enough there to tell."""
    total = probes[0].dot(array)[0]
    known = array.size > 1 and total and abs(probes[0].value) > 100 * probes[0].bound
    return total / probes[0].value if known else None


def miss(array: Array, probes: Sequence[Probe], factor: float) -> float:
    """The largest error of a hypothesis along the probes, relative to the gradient's size."""
    found = [(p.dot(array), p.value) for p in probes]
    return max(abs(total / factor - value) / (norm / abs(factor) or 1.0) for (total, norm, _), value in found)


def orders(array: Array) -> Iterator[tuple[str, Array]]:
    """The array with its entries in other orders, each with a name of its own. Only orders that differ from the given one."""
    candidates: list[tuple[str, Array]] = []
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


def precision(array: Array) -> str:
    """The lowest format, below the array's own, that holds every entry exactly though some need all its bits; "" if none does."""
    own = np.finfo(array.dtype).nmant + 1
    needed = significant_bits(array)
    for name, (bits, telling) in PRECISIONS.items():
        if bits < own and needed.max(initial=0) <= bits:
            return (
                name
                if np.unique(np.abs(array[needed >= telling])).size >= min(TELLING, max(1, array.size // 2))
                else ""
            )
    return ""


def significant_bits(array: Array) -> NDArray[np.int64]:
    """How many bits the mantissa of each entry needs; 0 of a zero."""
    mantissa = np.abs(np.frexp(np.asarray(array, dtype=np.float64))[0] * 2.0**53).astype(np.int64)
    lowest = mantissa & -mantissa  # its last bit that is set: a power of two
    return np.where(mantissa == 0, 0, 53 - np.log2(np.maximum(lowest, 1)).astype(np.int64))


def name_factor(factor: float, sizes: dict[str, int], tolerance: float = 1e-5) -> str:
    """What a factor equals: -1, 2, 1/2, a size of the case or its inverse; a product, a quotient, a neighbour of such; a loss
    scale. The simplest that fits; "" if nothing is that close.
    """
    for known in names_of_factors({name: float(size) for name, size in sizes.items() if size > 1}):
        fitting = [name for name, value in known if value and abs(factor / value - 1) <= tolerance]
        if fitting:
            return " or ".join(dict.fromkeys(fitting))
    return ""


def names_of_factors(sizes: dict[str, float]) -> Iterator[Iterable[tuple[str, float]]]:
    """(name, value) of factors, the simple ones first."""
    plain = [*sizes.items(), *((f"1/{name}", 1 / size) for name, size in sizes.items())]
    yield [("-1 (the sign)", -1.0), ("2", 2.0), ("1/2", 0.5), *plain]
    pairs = list(combinations(sizes.items(), 2))
    products = [(f"{a}*{b}", m * n) for (a, m), (b, n) in pairs]
    products += [(f"1/({a}*{b})", 1 / (m * n)) for (a, m), (b, n) in pairs]
    ratios = [(f"{a}/{b}", m / n) for (a, m), (b, n) in pairs] + [(f"{b}/{a}", n / m) for (a, m), (b, n) in pairs]
    yield [*products, *((f"-{name}", -value) for name, value in [("2", 2.0), ("1/2", 0.5), *plain])]
    near = [(f"{name}{by:+d}", size + by) for name, size in sizes.items() for by in (-1, 1)]
    means = [(f"{a}/({a}-1)", n / (n - 1)) for a, n in sizes.items()]
    means += [(f"({a}-1)/{a}", (n - 1) / n) for a, n in sizes.items()]
    yield [*ratios, *near, *((f"1/({name})", 1 / value) for name, value in near if value), *means]
    yield [(f"2^{k} (a loss scale)", 2.0**k) for e in LOSS_SCALES for k in (e, -e)]
