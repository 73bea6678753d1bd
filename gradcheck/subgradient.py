"""A gradient at a kink, where differences cannot tell: is it one that a subgradient can be?

At a tie, x = y in max(x, y), the right gradients are (1, 0), (0, 1) and what lies between. A reverse rule that hands each of the
tied entries all that arrives gives (1, 1), which is none of them: a small step along it changes the objective by 1, not by 2.

Every subgradient (Clarke's) lies in the hull of the gradients at points nearby. So a gradient is none if there is a direction
along which all of those have one and the same slope, the objective's own, and it has another. The direction is what the gradients
nearby do not span; fresh ones confirm it, and so do differences of the objective, which has no kink that way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradcheck.evidence import Evidence
from gradcheck.model import Gradient, Verdict
from gradcheck.numerics import reference
from gradcheck.numerics.compare import compare
from gradcheck.numerics.reference import Floats

if TYPE_CHECKING:
    from gradcheck.examine import Examination

NEARBY, FRESH = 8, 4  # gradients that span, and that confirm
NEAR = 1e-6  # how far away they are, in the input's scale: curvature changes them as little
LARGEST = 1000  # entries: a direction is sent entry by entry
APART = (
    1e-2  # of the gradient's error along the direction: what the slopes nearby may differ by, and differences be off by
)


def no_subgradient(examination: Examination, i: int, name: str, gradient: Gradient) -> Evidence | None:
    """The evidence that this gradient is wrong whichever side of the kink is meant; None if that cannot be shown."""
    array = gradient.array
    if array is None or not 1 < array.size <= LARGEST or examination.own_eps > 1e-12 or examination.case.order == 2:
        return None
    if examination.domains[name].inside:
        return None
    nearby = gradients_nearby(examination, i, name)
    if nearby is None:
        return None
    own = np.asarray(array, dtype=np.float64).reshape(-1)
    direction = outside(own - nearby[0], nearby[:NEARBY] - nearby[0])
    slopes = nearby @ direction
    error = float(own @ direction - slopes[0])
    if not abs(error) or np.abs(slopes - slopes[0]).max() > APART * abs(error):
        return None
    return held(examination, i, name, gradient, direction, float(own @ direction), error)


def gradients_nearby(examination: Examination, i: int, name: str) -> Floats | None:
    """Gradients at points nearby, float64[NEARBY + FRESH, size]; None if one of them is not there or not finite."""
    reach, found = NEAR * examination.scales[name], []
    for number in range(NEARBY + FRESH):
        point = [(name, reach, examination.move(name, f"nearby {number}"))]
        array = examination.session.gradients(point)[examination.objectives[i], name].array
        if array is None or not np.isfinite(array).all():
            return None
        found.append(np.asarray(array, dtype=np.float64).reshape(-1))
    return np.stack(found)


def outside(vector: Floats, rows: Floats) -> Floats:
    """The part of a vector that the rows do not span, its largest entry 1; zeros if it is next to nothing."""
    _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    basis = directions[sizes > 1e-3 * np.linalg.norm(vector)]
    left = vector - basis.T @ (basis @ vector)
    largest = np.abs(left).max()
    if largest <= 1e-3 * np.abs(vector).max():
        return np.zeros_like(vector)
    return np.asarray(np.where(np.abs(left) > 1e-9 * largest, left, 0.0) / largest)


def held(
    examination: Examination, i: int, name: str, gradient: Gradient, direction: Floats, slope: float, error: float
) -> Evidence | None:
    """The gradient against differences along the direction, if the objective has no kink that way and the others' slope."""
    scale, h = examination.scales[name], reference.KINK_STEP
    entries = [(int(j), float(direction[j])) for j in np.flatnonzero(direction)]
    points = [[(name, rung * h * scale * v, {"entry": j}) for j, v in entries] for rung in reference.LADDER]
    values, _ = examination.source.values(points)
    sides = (values[:, i] - examination.base[i]) / (np.array(reference.LADDER) * h)
    right = (slope - error) * scale
    if not (np.abs(sides - right) <= APART * abs(error) * scale).all():
        return None
    estimate = reference.extrapolate(examination.base, values, h, examination.sigma)
    value, bound = float(estimate.value[i]), float(estimate.bound[i])
    comparison = compare(slope * scale, value, bound, 0.0, abs(value) + abs(slope * scale))
    if comparison.verdict is not Verdict.MISMATCH:
        return None
    found = examination.verdict(i, name, Verdict.MISMATCH, ("GC201",), gradient, estimate, comparison)
    found.notes["no subgradient"] = NEARBY + FRESH
    found.notes["along"] = "along a direction without a kink"
    return found
