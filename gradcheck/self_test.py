"""`--self-test`: would planted errors be seen? On the user's own case, against the references that were measured anyway.

Errors are planted into the gradients that passed, and judged exactly as those were: nothing is run again. The last kind is an
error in one entry just above the detection limit that the pass stated: the limit is honest if it is always seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradcheck.evidence import Evidence
from gradcheck.model import Planted, Verdict

if TYPE_CHECKING:
    from gradcheck.examine import Examination

Array = NDArray[Any]
ABOVE = 1.05  # times the detection limit


def self_test(exam: Examination, checks: list[Evidence]) -> tuple[Planted, ...]:
    """How many of each kind of error were planted and seen, over all checks that passed with a gradient that is not zero."""
    planted: dict[str, list[str]] = {}
    seen: dict[str, int] = {}
    for evidence in checks:
        array = evidence.gradient.array
        if evidence.check.verdict is not Verdict.PASS or array is None or not array.any() or evidence.estimate is None:
            continue
        for kind, wrong in faults(np.asarray(array), evidence.check.detection_limit):
            planted.setdefault(kind, [])
            found = exam.comparison(
                evidence.objective_index, evidence.check.parameter, evidence.estimate, evidence.salt, wrong
            )
            if found.verdict is Verdict.MISMATCH:
                seen[kind] = seen.get(kind, 0) + 1
            else:
                planted[kind].append(f"d {evidence.check.objective} / d {evidence.check.parameter}")
    return tuple(
        Planted(exam.backend, kind, seen.get(kind, 0) + len(missed), seen.get(kind, 0), tuple(missed))
        for kind, missed in planted.items()
    )


def faults(array: Array, limit: float | None) -> Iterator[tuple[str, Array]]:
    """Each kind of error that fits this gradient, planted into a copy."""
    median = int(np.argsort(np.abs(array).reshape(-1))[array.size // 2])
    kinds: dict[str, Callable[[Array], Array]] = {
        "one entry x1.01": lambda a: with_entry(a, median, a.reshape(-1)[median] * 0.01),
        "whole tensor x1.001": lambda a: a * 1.001,
        "wrong sign": lambda a: -a,
        "zeroed": np.zeros_like,
    }
    if array.ndim == 2 and array.shape[0] == array.shape[1] > 1 and not np.allclose(array, array.T):
        kinds["transposed"] = np.transpose
    for kind, fault in kinds.items():
        yield kind, fault(array.astype(np.float64))
    if limit is not None and np.isfinite(limit):
        yield "one entry, at the stated limit", with_entry(array.astype(np.float64), median, ABOVE * limit)


def with_entry(array: Array, index: int, error: float) -> Array:
    array.reshape(-1)[index] += error
    return array
