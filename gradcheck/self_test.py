"""`--self-test`: would planted errors be seen? On the user's own case, against the references that were measured anyway.

Errors are planted into the gradients that passed, and judged exactly as those were. Only for "one time step dropped" something
is run: a reverse pass that tells each step's contribution along the judged probe. The last kind is an error in one entry just
above the detection limit that the pass stated: the limit is honest if it is always seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradcheck._backends._worker import directions
from gradcheck.diagnosis.time_steps import contributions, timed
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.model import Case, Planted, Role, Verdict
from gradcheck.session import Arrays, Session, unmoved

if TYPE_CHECKING:
    from gradcheck.examine import Examination

Array = NDArray[Any]
Prepare = Callable[[Case, Arrays], AbstractContextManager[Session]]  # a session on the backend of the examination
ABOVE = 1.05  # times the detection limit


def self_test(exam: Examination, checks: list[Evidence], prepare: Prepare) -> tuple[Planted, ...]:
    """How many of each kind of error were planted and seen, over all checks that passed with a gradient that is not zero."""
    planted: dict[str, list[str]] = {}
    seen: dict[str, int] = {}
    passed = [e for e in checks if can_be_planted(e)]
    shares = shares_of_one_step(exam, passed, prepare)
    for evidence in passed:
        array = np.asarray(evidence.gradient.array)
        wrongs = dict(faults(array, evidence.check.detection_limit))
        if (share := shares.get(id(evidence))) is not None:
            wrongs["one time step dropped"] = without_share(exam, evidence, array, share)
        for kind, wrong in wrongs.items():
            planted.setdefault(kind, [])
            assert evidence.estimate is not None
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


def can_be_planted(evidence: Evidence) -> bool:
    array = evidence.gradient.array
    return (
        evidence.check.verdict is Verdict.PASS
        and array is not None
        and bool(array.any())
        and evidence.estimate is not None
    )


def shares_of_one_step(exam: Examination, checks: list[Evidence], prepare: Prepare) -> dict[int, float]:
    """Each check's median contribution of a step along its judged probe, by id; those of steps that contribute nothing apart.

    One compilation serves all objectives of a parameter. Sequences and initial carries have no steps to drop.
    """
    case, shares = exam.case, {}
    parameters = dict.fromkeys((e.check.parameter, e.salt) for e in checks)
    for name, salt in parameters:
        mine = [e for e in checks if (e.check.parameter, e.salt) == (name, salt)]
        if case.native or case.steps < 2 or case.input(name).role is not Role.PARAMETER:
            continue
        probed, arrays = timed(
            case, [e.check.objective for e in mine], name, exam.session.arrays, exam.scales[name], salt
        )
        try:
            with prepare(probed, arrays) as session:
                found = {id(e): contributions(session, e.check.objective) for e in mine}
        except BackendError:
            continue  # this framework cannot move the parameter step by step: nothing is planted, nor counted
        for key, steps in found.items():
            if steps is not None and steps.any():
                ordered = sorted(steps[steps != 0], key=abs)
                shares[key] = float(ordered[len(ordered) // 2])
    return shares


def without_share(exam: Examination, evidence: Evidence, array: Array, share: float) -> Array:
    """The gradient without a step's contribution, as far as the judged probe v sees it: smaller by `share` along v, and along
    nothing else.
    """
    name = evidence.check.parameter
    move, base = exam.move(name, evidence.salt), unmoved(exam.session, name)
    _, norm, _ = directions.dot(np.ones(array.size), move, base)
    flat = array.astype(np.float64).reshape(-1)
    directions.add(flat, -share / (exam.scales[name] * norm**2), move, base)
    return flat.reshape(array.shape)


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
