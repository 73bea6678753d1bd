"""Directional derivatives by central differences, with an error bound that comes out of the values themselves.

Values at 0, +-h, +-h/2 give two central differences and their Richardson extrapolation R = (4 D(h/2) - D(h)) / 3, whose own
truncation is estimated from how the odd and the even differences change between the two steps, and whose rounding is the
measured noise of the objective over h. Steps are relative: h = 1 moves a tensor by its own root mean square.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Irregular, non-dyadic offsets: equally spaced dyadic ones round alike and read the noise up to 3000 times too low.
NOISE_OFFSETS = np.array(
    [-1.0, -0.7548776662, -0.4656226643, -0.1719338937, 0.1322437181, 0.4142135624, 0.6823278038, 0.9510565163]
)
NOISE_RADIUS = 1e6  # times eps: 2e-10 in float64, far below curvature, far above the spacing of the inputs
LADDER = (1.0, -1.0, 0.5, -0.5)  # times h, in the order of the values
PILOT_STEP = 2.0**-7
LARGEST_STEP, SMALLEST_STEP = 2.0**-2, 2.0**-19
SAFETY = 1.5
TRIES = 4  # steps tried per probe before "cannot tell"


def noise_radius(eps: float) -> float:
    """Half-width of the interval in which the noise is read. float32 cannot afford 1e6 spacings; 64 are still smooth."""
    return NOISE_RADIUS * eps if eps < 1e-12 else 64 * eps


@dataclass(frozen=True, slots=True)
class Estimate:
    """Directional derivatives of all objectives along one probe.

    value, bound: float64[objectives], the true derivative lies within value +- bound. truncation, rounding: its two parts.
    step: h. ladder: (step, central differences) pairs. moved: whether any value differed from the base
    value, bool[objectives].
    gap: difference of the forward and backward slopes, extrapolated to h = 0 (0 where smooth).
    """

    value: Floats
    bound: Floats
    truncation: Floats
    rounding: Floats
    step: float
    ladder: tuple[tuple[float, Floats], ...]
    moved: NDArray[np.bool_]
    gap: Floats
    method: str = "finite differences"


def noise_level(offsets: Floats, values: Floats, base: Floats, eps: float) -> Floats:
    """Standard deviation of the rounding noise: the smallest residual of polynomial fits of degree 1 to 3.

    offsets: float64[n]; values: float64[n, objectives]. Never below 0.3 eps |base|, which luck could undercut.
    """
    scaled = offsets / np.max(np.abs(offsets))
    residuals = []
    for degree in (1, 2, 3):
        powers = np.vander(scaled, degree + 1)
        fitted = powers @ np.linalg.lstsq(powers, values, rcond=None)[0] if np.isfinite(values).all() else values
        residuals.append(np.sqrt(((values - fitted) ** 2).sum(0) / (len(offsets) - degree - 1)))
    floor = 0.3 * eps * np.abs(base)
    return np.asarray(np.maximum(np.min(residuals, axis=0), floor))


def extrapolate(base: Floats, values: Floats, h: float, sigma: Floats) -> Estimate:
    """The estimate from values float64[4, objectives] at the LADDER's steps. Non-finite values give a non-finite bound."""
    with np.errstate(all="ignore"):
        whole = (values[0] - values[1]) / (2 * h)
        half = (values[2] - values[3]) / h
        result = (4 * half - whole) / 3
        noise = np.maximum(sigma / h, np.finfo(float).tiny)
        odd = np.maximum(0, 4 / 3 * np.abs(whole - half) - 6 * noise)
        even_whole = (values[0] + values[1] - 2 * base) / (2 * h * h)
        even_half = (values[2] + values[3] - 2 * base) / (h * h / 2)
        even2 = np.abs(even_half) * h
        even4 = np.maximum(0, 4 / 3 * np.abs(even_whole - even_half) * h - 30 * noise)
        # how much smaller the next order is: the larger of what the odd, the even and the mixed orders say
        ratio = np.minimum(
            1,
            np.maximum.reduce(
                [odd / (np.abs(result) + 6 * noise), even4 / (even2 + 12 * noise), (even4 / (odd + 6 * noise)) ** 2]
            ),
        )
        truncation = 16 * np.maximum(odd, even4) * ratio
        rounding = 11.4 * noise
        gap = 2 * even_half * h - 2 * even_whole * h  # slopes' gap at h/2, doubled, minus the gap at h
        bound = SAFETY * (truncation + rounding)
    bound = np.where(np.isfinite(result) & np.isfinite(bound), bound, np.inf)
    return Estimate(
        value=result,
        bound=bound,
        truncation=np.where(np.isfinite(bound), SAFETY * truncation, np.inf),
        rounding=SAFETY * rounding,
        step=h,
        ladder=((h, whole), (h / 2, half)),
        moved=(values != base).any(0),
        gap=gap,
    )


def balanced_step(estimate: Estimate, wanted: NDArray[np.bool_] | None = None) -> float:
    """The step at which truncation (h^4) and rounding (1/h) would be equal, for the objective that needs the smallest."""
    truncation, rounding = estimate.truncation, estimate.rounding
    if wanted is not None and wanted.any():
        truncation, rounding = truncation[wanted], rounding[wanted]
    usable = np.isfinite(truncation)
    if not usable.any():
        return estimate.step / 16
    factors = (
        rounding[usable] / np.maximum(4 * truncation[usable], 1e-12 * rounding[usable] + np.finfo(float).tiny)
    ) ** 0.2
    return float(np.clip(estimate.step * factors.min(), SMALLEST_STEP, LARGEST_STEP))


def next_step(estimate: Estimate, wanted: NDArray[np.bool_], attempt: int) -> float | None:
    """The step to try after one whose bound is too wide for the `wanted` objectives, or None if no other step can help."""
    truncated = wanted & ~(estimate.truncation <= estimate.rounding)
    if truncated.any():
        target = min(balanced_step(estimate, truncated), estimate.step / 4)
        if attempt >= 2:  # not converging as a smooth function does: look below the kinks that the stencil crosses
            target = min(target, 2.0**-17)
        return max(target, SMALLEST_STEP) if estimate.step > SMALLEST_STEP else None
    target = balanced_step(estimate, wanted)
    return target if target > 2 * estimate.step else None


def ladder(
    values_at: Callable[[Sequence[float]], Floats],
    base: Floats,
    sigma: Floats,
    step: float,
    enough: Floats,
    finite: NDArray[np.bool_],
) -> Estimate:
    """Estimates at one step or more, until the bound is `enough`; per objective the one with the smallest bound is kept.

    values_at: objectives float64[n, objectives] at n offsets along the probe. enough: float64[objectives]. finite: which
    objectives are finite at the base point; the others cannot be helped.
    """
    best: Estimate | None = None
    for attempt in range(TRIES):
        estimate = extrapolate(base, values_at([step * rung for rung in LADDER]), step, sigma)
        best = estimate if best is None else narrower(best, estimate)
        settled = (best.truncation <= best.rounding) & (best.bound <= 1e3 * enough)  # another step would gain little
        wanted = finite & (best.bound > enough) & ~settled
        following = next_step(estimate, wanted, attempt) if wanted.any() else None
        if following is None:
            break
        step = following
    assert best is not None
    return best


def narrower(one: Estimate, other: Estimate) -> Estimate:
    """Per objective, the estimate with the smaller bound."""
    better = other.bound < one.bound

    def pick(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        return np.where(better, b, a)

    return Estimate(
        pick(one.value, other.value),
        pick(one.bound, other.bound),
        pick(one.truncation, other.truncation),
        pick(one.rounding, other.rounding),
        other.step if better.any() else one.step,
        one.ladder + other.ladder,
        pick(one.moved, other.moved),
        pick(one.gap, other.gap),
        one.method,
    )
