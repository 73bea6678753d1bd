"""Where a wrong gradient is wrong: a lone entry by the digits of its index, else entry by entry, as far as that is affordable."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradcheck._backends._worker import directions
from gradcheck.evidence import Evidence
from gradcheck.model import Worst
from gradcheck.numerics import localise
from gradcheck.session import Move

if TYPE_CHECKING:
    from gradcheck.examine import Examination

FEW = 8  # entries so few that looking at each costs less than a search
ENTRIES = 128  # entries differenced one by one where something disagrees; a larger tensor is sampled evenly
EPS = 2.0**-52


def localised(exam: Examination, i: int, name: str, evidence: Evidence) -> Evidence:
    """Difference single entries (all of a small tensor, an even sample of a large one), then the worst one carefully."""
    array = evidence.gradient.array
    shape = exam.session.arrays[name].shape
    flat = np.zeros(int(np.prod(shape))) if array is None else np.asarray(array, dtype=np.float64).reshape(-1)
    before = exam.source.evaluations
    lone = lone_entry(exam, i, name, flat, evidence) if flat.size > FEW else None
    chosen = np.unique(np.linspace(0, flat.size - 1, min(ENTRIES, flat.size)).astype(int))
    found = np.full(flat.size, np.nan)
    if lone is not None:
        chosen = np.array([lone])
        found[lone] = flat[lone]
    elif exam.complex:
        found[chosen] = exam.source.derivatives([[(name, 1.0, {"entry": int(k)})] for k in chosen])[:, i]
    else:
        found[chosen] = entry_differences(exam, i, name, chosen, flat[chosen], evidence)
    error = np.abs(flat - found)
    worst = int(np.nanargmax(error)) if np.isfinite(error).any() else int(chosen[0])
    if lone is None and chosen.size < flat.size and not explains(exam, name, error[worst], flat.size, evidence):
        return evidence  # the sample missed what is wrong: no entry is named rather than a right one
    careful, bound = entry(exam, i, name, worst, evidence)
    found[worst] = careful
    right = np.where(np.isnan(found), flat, found) if lone is not None else found
    largest = float(np.nanmax(np.abs(right))) or float(np.max(np.abs(flat)))
    absolute = abs(float(flat[worst]) - careful)
    check = replace(
        evidence.check,
        worst=Worst(tuple(int(k) for k in np.unravel_index(worst, shape)), float(flat[worst]), careful),
        max_abs_error=absolute,
        max_rel_error=absolute / largest if largest else 0.0,
        error_bound=bound,
        reference_norm=float(np.sqrt(np.nansum(found**2))) if chosen.size == flat.size else None,
        forward_evaluations=evidence.check.forward_evaluations + exam.source.evaluations - before,
    )
    evidence.check, evidence.entries = check, found.reshape(shape)
    evidence.notes["examined"] = (int(chosen.size), int(flat.size))
    evidence.notes["lone"] = lone is not None
    return evidence


def explains(exam: Examination, name: str, error: float, size: int, evidence: Evidence) -> bool:
    """Whether the worst of a sample is as wrong as entries must be if all of them share the error along the probe."""
    comparison = evidence.comparison
    return comparison is None or error * exam.scales[name] >= 0.1 * comparison.error / size**0.5


def lone_entry(exam: Examination, i: int, name: str, flat: NDArray[np.float64], evidence: Evidence) -> int | None:
    """The only wrong entry, found by the digits of its index and held against its own difference; None if it is not alone."""
    comparison, scale = evidence.comparison, exam.scales[name]
    assert comparison is not None
    discrepancy = comparison.analytic - comparison.reference
    base = localise.base_for(flat.size, discrepancy, comparison.allowed)
    if base is None:
        return None

    def weighted(m: int) -> float:
        move = exam.move(name, "probe", base=base, digit=m)
        analytic = exam.dot(flat, name, move)[0] / scale
        return (analytic - single(exam, i, name, move, 0.1 * comparison.allowed)[0]) * scale

    index = localise.lone_entry(flat.size, discrepancy, base, weighted)
    if index is None:
        return None
    error = flat[index] - single(exam, i, name, exam.move(name, entry=index), 0.1 * comparison.allowed)[0]
    base_values = exam.session.arrays[name].reshape(-1)
    explained = float(error * scale * directions.part(exam.move(name, "probe"), index, index + 1, base_values)[0])
    fits = abs(explained - discrepancy) <= min(4 * comparison.allowed + 1e-3 * abs(discrepancy), 0.3 * abs(discrepancy))
    return index if fits else None


def entry(exam: Examination, i: int, name: str, index: int, evidence: Evidence) -> tuple[float, float]:
    """(derivative, bound) of one entry, with care; its ladder goes into the notes."""
    comparison = evidence.comparison
    assert comparison is not None
    return single(exam, i, name, exam.move(name, entry=index), 1e-3 * comparison.error, evidence.notes)


def single(
    exam: Examination, i: int, name: str, move: Move, enough: float, notes: dict[str, Any] | None = None
) -> tuple[float, float]:
    """(derivative, bound) of objective i along one move, per unit of the input; by a single entry whichever way it moves."""
    scale = exam.scales[name]
    sign = directions.unit(move, exam.session.arrays[name].reshape(-1)) if "entry" in move else 1.0
    if exam.complex:
        value = sign * float(exam.source.derivatives([[(name, 1.0, move)]])[0, i])
        return value, 256 * EPS * abs(value)
    wanted = np.full(len(exam.objectives), np.inf)
    wanted[i] = max(enough, 1e-300)
    estimate = exam.ladder(name, move, exam.step, wanted)
    if notes is not None:
        notes["entry_ladder"] = estimate
    return sign * float(estimate.value[i]) / scale, float(estimate.bound[i]) / scale


def entry_differences(
    exam: Examination, i: int, name: str, chosen: NDArray[np.int64], analytic: NDArray[np.float64], evidence: Evidence
) -> NDArray[np.float64]:
    """Derivatives by single entries: extrapolated if the error does not stand out otherwise."""

    def central(h: float) -> NDArray[np.float64]:
        moves = [exam.move(name, entry=int(k)) for k in chosen]
        base, inward = exam.session.arrays[name].reshape(-1), bool(exam.domains[name].inside)
        points = [[(name, t * h, move)] for move in moves for t in ((1.0, 0.5) if inward else (1.0, -1.0))]
        values = exam.source.values(points)[0][:, i]
        if inward:  # as exact as central ones: of second order
            signs = np.array([directions.unit(move, base) for move in moves])
            return np.asarray(signs * (4 * values[1::2] - values[0::2] - 3 * exam.base[i]) / h)
        return np.asarray((values[0::2] - values[1::2]) / (2 * h))

    step = evidence.estimate.step if evidence.estimate else exam.step
    h = min(max(step, 2.0**-12), exam.domains[name].largest) * exam.scales[name]
    whole = central(h)
    if not np.nanmax(np.abs(whole - analytic), initial=0.0) < 1e-2 * np.nanmax(np.abs(whole), initial=0.0):
        return whole
    return np.asarray((4 * central(h / 2) - whole) / 3)
