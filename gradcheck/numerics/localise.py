"""Finds the one wrong entry among many from a few directional derivatives, by the digits of its index.

Along a direction v the discrepancy of a lone error e in entry k is e v_k. Along v weighted by a digit of each entry's index it
is that times the digit of k over the largest digit: the ratio spells out k. The base is as large as the accuracy allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

LARGEST_BASE = 4096


def base_for(size: int, discrepancy: float, uncertainty: float) -> int | None:
    """The base whose digits can be told apart, or None if no digit can. Both in objective units along the probe.

    The uncertainty is a bound, mostly far above the error: 2 is tried with whatever exceeds it, and what it finds is verified.
    """
    if not (math.isfinite(uncertainty) and abs(discrepancy) > uncertainty):
        return None
    resolution = abs(discrepancy) / (8 * max(uncertainty, 1e-300))
    return int(max(2, min(size, LARGEST_BASE, resolution)))


def digits_needed(size: int, base: int) -> int:
    """How many digits an index below `size` has."""
    count, reach = 1, base
    while reach < size:
        count, reach = count + 1, reach * base
    return count


def lone_entry(size: int, discrepancy: float, base: int, weighted: Callable[[int], float]) -> int | None:
    """The index of a lone wrong entry, or None if the discrepancies do not fit one.

    discrepancy: along the plain direction; weighted(m): along the direction weighted by digit m (0 the lowest).
    """
    if size == 1:
        return 0
    found: list[int] = []
    for m in range(digits_needed(size, base)):
        digit = weighted(m) / discrepancy * (base - 1)
        if not abs(digit - round(digit)) < 0.3 or not 0 <= round(digit) < base:
            return None
        found.append(round(digit))
    return _index(found, base, size)


def _index(digits: Sequence[int], base: int, size: int) -> int | None:
    index = sum(digit * base**m for m, digit in enumerate(digits))
    return index if index < size else None
