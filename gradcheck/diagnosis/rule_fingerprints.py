"""What the wrong reverse rule of one op gives instead of the right cotangent; each hypothesis is tested on the op alone.

A factor, another order, a sum too many, a lower precision: as for whole gradients. Nothing at all. What one slice of its result
alone gives, where a sum over all of them is due. Of an op with an index that repeats: what one of the repeats alone gives, or
for each of them what is due to one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.examine import Examination
from gradcheck.model import Case, Verdict
from gradcheck.numerics.fingerprint import Fingerprint, name_factor
from gradcheck.session import Focus, Session, Supposed

SLICES = 8  # of an axis that are tried: the first and the last of a longer one
Restriction = tuple[int, Sequence[int]]  # axis and the indices that are kept along it


def instead(session: Session, focus: Focus, case: Case, checks: Sequence[Evidence]) -> tuple[str, bool]:
    """(words, whether they are about all inputs by which the rule is wrong): what it gives instead, and where it is right."""
    wrong = [e for e in checks if e.check.verdict is Verdict.MISMATCH]
    right = list(dict.fromkeys(e.check.parameter for e in checks if e.check.verdict is Verdict.PASS))
    told: dict[str, list[str]] = {}
    for evidence in wrong:
        words = words_for(session, focus, case, evidence)
        if words and evidence.check.parameter not in told.get(words, ()):
            told.setdefault(words, []).append(evidence.check.parameter)
    found = [f"by {' and '.join(names)} that is {words}" for words, names in told.items()]
    spoilt = {e.check.parameter for e in wrong}
    right = [name for name in right if name not in spoilt]
    if found and right:
        found.append(f"by {' and '.join(right)} it is right")
    return "; ".join(found), spoilt == {name for names in told.values() for name in names}


def words_for(session: Session, focus: Focus, case: Case, evidence: Evidence) -> str:
    """What one cotangent of the op is; "" if no hypothesis holds."""
    array = evidence.gradient.array
    if array is None:
        return ""
    if not array.any():
        return "0 exactly: what comes back that way is lost"
    if evidence.fingerprint is not None:
        return pattern(evidence.fingerprint, case, array.shape)
    pair = evidence.check.objective, evidence.check.parameter
    try:
        for words, supposed, only in hypotheses(focus, pair, np.asarray(array)):
            if holds(session, focus, pair, supposed, only):
                return words
    except BackendError:
        if not session.alive:
            raise
    return ""


def pattern(found: Fingerprint, case: Case, shape: Sequence[int]) -> str:
    lengths = {f"length of its axis {axis}": n for axis, n in enumerate(shape)}
    name = name_factor(found.factor, {"steps": case.steps, **case.dims}) or name_factor(found.factor, lengths)
    times = f"{found.factor:.6g} times the right one" + (f" (which equals {name})" if name else "")
    if name.startswith("-1 "):
        times = "has the wrong sign"
    if found.kind == "order":
        return f"the right one {found.words}" + (
            "" if found.factor == 1 else f", and {times.replace('has the', 'with the')}"
        )
    if times.startswith("has"):
        return "the right one with the wrong sign"
    if found.kind == "sum":
        return f"{found.words} of the right one, in every entry"
    return times if found.kind == "factor" else f"the right one as rounded to {found.words}"


def hypotheses(
    focus: Focus, pair: tuple[str, str], array: NDArray[Any]
) -> Iterator[tuple[str, NDArray[Any], Restriction | None]]:
    """(words, gradient, restriction): the words hold if this is the gradient of the op whose results are so restricted."""
    shape = focus.results.get(pair[0], ())
    for name, indices in focus.integers.items():
        flat = indices.reshape(-1)
        first, last = occurrences(flat)
        if len(first) == flat.size:
            continue
        for axis in (a for a, n in enumerate(shape) if n == flat.size):
            for which, kept in (("last", last), ("first", first)):
                words = f"what the {which} of equal indices ({name}) gives: the sum over those that repeat is missing"
                yield words, array, (axis, kept)
        for axis in (a for a, n in enumerate(array.shape) if n == flat.size):
            for which, kept in (("last", last), ("first", first)):
                words = f"right for the {which} of equal indices ({name}), and not 0 for the others, which do not count"
                yield words, only(array, axis, kept), None
    for axis, length in enumerate(shape):
        tried = range(length) if length <= SLICES else (0, length - 1)
        for index in tried if length > 1 else ():
            words = f"what index {index} of axis {axis} of its result gives alone: the sum over that axis is missing"
            yield words, array, (axis, [index])


def holds(session: Session, focus: Focus, pair: tuple[str, str], array: NDArray[Any], only: Restriction | None) -> bool:
    """Whether an array is the derivative of the op, its results restricted: examined as any gradient is."""
    if not array.any():
        return False
    supposed = Supposed(session, focus, pair, array, only)
    try:
        (evidence,) = Examination("what it equals", supposed, None, None, 0.0).run().checks
        return evidence.check.verdict is Verdict.PASS
    finally:
        supposed.close()


def occurrences(flat: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """The positions of the first and of the last occurrence of each value."""
    first = np.unique(flat, return_index=True)[1]
    last = flat.size - 1 - np.unique(flat[::-1], return_index=True)[1]
    return sorted(int(k) for k in first), sorted(int(k) for k in last)


def only(array: NDArray[Any], axis: int, kept: Sequence[int]) -> NDArray[Any]:
    """The array with zeros where the coordinate along the axis is none of those kept."""
    inside = np.isin(np.arange(array.shape[axis]), list(kept))
    return np.asarray(array * inside.reshape([-1 if k == axis else 1 for k in range(array.ndim)]), dtype=array.dtype)
