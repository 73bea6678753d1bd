"""Directional derivatives by central differences, with an error bound that comes out of the values themselves.

Values at 0, +-h, +-h/2 give two central differences and their Richardson extrapolation R = (4 D(h/2) - D(h)) / 3, whose own
truncation is estimated from how the odd and the even differences change between the two steps, and whose rounding is the
measured noise of the objective over h. Steps are relative: h = 1 moves a tensor by its own root mean square.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
INWARD_LADDER = (1.0, 0.75, 0.5, 0.25)  # the same where only one side may be looked at
PILOT_STEP = 2.0**-7
LARGEST_STEP, SMALLEST_STEP = 2.0**-2, 2.0**-26
KINK_STEP = 2.0**-16  # where a gap of slopes is looked for again
SAFETY = 1.5
TRIES = 4  # steps tried per probe before "cannot tell"
WORTH = 2.0  # octaves of detection limit that a further step must promise, where the judgement is possible without it
SLACK = 0.1  # octaves of it that are given away for a smaller step
CAUTION = 8.0  # what the truncation of one input may be larger than that of the direction that chose the step


def noise_radius(eps: float) -> float:
    """Half-width of the interval in which the noise is read. float32 cannot afford 1e6 spacings; 64 are still smooth."""
    return NOISE_RADIUS * eps if eps < 1e-12 else 64 * eps


def noise_offsets(eps: float, inward: bool = False, largest: float = LARGEST_STEP) -> Floats:
    """Where the noise is read, float64[8]: around 0, or from 0 on if only one side may be looked at."""
    radius = min(noise_radius(eps), largest / 2)
    return np.asarray((NOISE_OFFSETS + 1 if inward else NOISE_OFFSETS) * radius)


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

    offsets: float64[n]; values: float64[n, objectives]. Never below 0.3 eps |base|, which luck could undercut;
    exactly that where values are not finite.
    """
    scaled = offsets / np.max(np.abs(offsets))
    values = np.where(np.isfinite(values).all(0), values, 0.0)
    residuals = []
    for degree in (1, 2, 3):
        powers = np.vander(scaled, degree + 1)
        fitted = powers @ np.linalg.lstsq(powers, values, rcond=None)[0]
        residuals.append(np.sqrt(((values - fitted) ** 2).sum(0) / (len(offsets) - degree - 1)))
    floor = 0.3 * eps * np.abs(base)
    return np.asarray(np.maximum(np.min(residuals, axis=0), floor))


def in_two_groups(values: Floats) -> NDArray[np.bool_]:
    """Whether values at points this close together fall in two groups: a jump goes through the point, and is no noise.

    values: float64[n, objectives]; bool[objectives]. Within a group they differ by a thousandth of the gap at most.
    """
    with np.errstate(invalid="ignore"):
        ordered = np.sort(values, axis=0)
        gaps = np.diff(ordered, axis=0)
        widest = gaps.max(0)
        return np.asarray((widest > 0) & (ordered[-1] - ordered[0] - widest <= 1e-3 * widest))


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


def extrapolate_inward(base: Floats, values: Floats, h: float, sigma: Floats) -> Estimate:
    """The same from values at the INWARD_LADDER's steps: one-sided differences of order 1 to 4 and how they converge.

    With d = h / 4 the orders differ by about d f(2) / 2, d^2 f(3) / 3 and d^3 f(4) / 4; what is left is the next of that row.
    Standard weights of equally spaced forward differences (Fornberg, Math. Comp. 51, 1988). A gap of slopes is not seen.
    """
    with np.errstate(all="ignore"):
        d = h / 4
        f4, f3, f2, f1 = values - base
        first, second = f1 / d, (2 * f1 - f2 / 2) / d
        third, result = (3 * f1 - 1.5 * f2 + f3 / 3) / d, (4 * f1 - 3 * f2 + 4 / 3 * f3 - f4 / 4) / d
        noise = np.maximum(sigma / h, np.finfo(float).tiny)
        # each difference's own rounding, three times its standard deviation, is taken off what it says
        curved = np.abs(second - first)
        cubic = np.maximum(0, np.abs(third - second) - 24 * noise)
        quartic = np.maximum(0, np.abs(result - third) - 48 * noise)
        ratio = np.minimum(1, np.maximum(cubic / (curved + 6 * noise), quartic / (np.abs(third - second) + 24 * noise)))
        truncation = 16 * np.maximum(quartic, cubic * ratio) * ratio
        rounding = 134 * noise
        bound = SAFETY * (truncation + rounding)
    bound = np.where(np.isfinite(result) & np.isfinite(bound), bound, np.inf)
    return Estimate(
        value=result,
        bound=bound,
        truncation=np.where(np.isfinite(bound), SAFETY * truncation, np.inf),
        rounding=SAFETY * rounding,
        step=h,
        ladder=((h, third), (h, result)),
        moved=(values != base).any(0),
        gap=np.zeros_like(result),
        method="one-sided differences",
    )


Extrapolation = Callable[[Floats, Floats, float, Floats], Estimate]


def stencil(inward: bool) -> tuple[tuple[float, ...], Extrapolation]:
    """Where values are needed, in units of the step, and what makes an estimate of them."""
    return (INWARD_LADDER, extrapolate_inward) if inward else (LADDER, extrapolate)


def pilot_step(sigma: Floats, slope: Floats) -> float:
    """Where the truncation of a function that bends over its own size is about a thousand times its rounding.

    slope: float64[objectives], the size of the derivative along the pilot's direction: only a guess is needed. The geometric
    mean over the objectives; PILOT_STEP where none is known.
    """
    with np.errstate(all="ignore"):
        steps = 4 * (sigma / slope) ** 0.2
    known = steps[np.isfinite(steps) & (steps > 0)]
    steps = np.clip(known, PILOT_STEP, LARGEST_STEP)
    return float(np.exp(np.log(steps).mean())) if known.size else PILOT_STEP


def predicted(estimate: Estimate, steps: Floats) -> Floats:
    """The bounds to be expected at other steps, float64[steps, objectives]: truncation as h^4, rounding as 1/h."""
    factors = (np.asarray(steps) / estimate.step)[:, None]
    with np.errstate(all="ignore"):
        return np.asarray(estimate.truncation * factors**4 + estimate.rounding / factors)


def octaves(bounds: Floats, enough: Floats) -> Floats:
    """How far bounds float64[..., objectives] keep the detection limit above what `enough` gives, in octaves, summed."""
    with np.errstate(all="ignore"):
        lost = np.log2(1 + bounds / np.maximum(enough, np.finfo(float).tiny))
    return np.asarray(lost.sum(-1))


def balanced_step(
    estimate: Estimate,
    wanted: NDArray[np.bool_] | None = None,
    enough: Floats | None = None,
    largest: float = LARGEST_STEP,
    caution: float = 1.0,
) -> float:
    """The step that costs the `wanted` objectives the least detection limit, if truncation goes as h^4 and rounding as 1/h.

    enough: float64[objectives], bounds below which nothing more is gained (None: 0). caution: what the truncation may be
    larger than measured.
    """
    usable = np.isfinite(estimate.truncation) & (estimate.rounding > 0)
    if wanted is not None and (usable & wanted).any():
        usable &= wanted
    if not usable.any():
        return min(estimate.step / 16, largest)
    wide = replace(
        estimate,
        truncation=caution * np.maximum(estimate.truncation, 1e-12 * estimate.rounding)[usable],
        rounding=estimate.rounding[usable],
    )
    steps = np.minimum(2.0 ** np.arange(np.log2(SMALLEST_STEP), np.log2(LARGEST_STEP) + 0.1, 0.25), largest)
    lost = octaves(predicted(wide, steps), np.zeros(usable.sum()) if enough is None else enough[usable])
    return float(
        steps[np.argmax(lost <= lost.min() + SLACK)]
    )  # the smallest of those that are as good: kinks may be near


def next_step(
    estimate: Estimate, enough: Floats, short: NDArray[np.bool_], attempt: int, largest: float
) -> float | None:
    """The step to try after one whose bound is too wide for the objectives `short`, or None if no other step can help.

    The estimate's truncation is what is feared of it where rounding hides it.
    """
    truncated = short & ~(estimate.truncation <= estimate.rounding)
    if truncated.any():
        target = min(balanced_step(estimate, truncated, enough), estimate.step / 4)
        if attempt >= 2:  # not converging as a smooth function does: look below the kinks that the stencil crosses
            target = min(target, 2.0**-17)
        return max(target, SMALLEST_STEP) if estimate.step > SMALLEST_STEP else None
    target = balanced_step(estimate, short, enough, largest)
    return target if target > 2 * estimate.step else None


@dataclass(slots=True)
class Allowance:
    """How many values may still be spent on further steps, over all probes of a case."""

    values: int

    def take(self, count: int) -> bool:
        """Whether so many are left; they are taken."""
        if self.values < count:
            return False
        self.values -= count
        return True


def ladder(
    values_at: Callable[[Sequence[float]], Floats],
    base: Floats,
    sigma: Floats,
    step: float,
    enough: Floats,
    finite: NDArray[np.bool_],
    needed: Floats | None = None,
    allowance: Allowance | None = None,
    quintic: Floats | None = None,
    inward: bool = False,
    largest: float = LARGEST_STEP,
) -> Estimate:
    """Estimates at one step or more, until the bound is `enough`; per objective the one with the smallest bound is kept.

    values_at: objectives float64[n, objectives] at n offsets along the probe. enough: float64[objectives]. finite: which
    objectives are finite at the base point; the others cannot be helped. needed: float64[objectives], bounds with which a
    judgement is possible: from there on, a further step must promise to be WORTH it (None: `enough` is needed).
    allowance: what further steps may cost (None: TRIES steps). quintic: float64[objectives], truncation over h^4 along other
    directions, for want of a better guess where rounding hides it. inward: only offsets from 0 to `largest` are looked at.
    """
    rungs, estimated = stencil(inward)
    needed = enough if needed is None else needed
    tolerated = (2**WORTH - 1) * enough  # a bound that costs less than WORTH octaves of the detection limit
    best: Estimate | None = None
    step = min(step, largest)
    for attempt in range(TRIES):
        estimate = estimated(base, values_at([step * rung for rung in rungs]), step, sigma)
        best = estimate if best is None else narrower(best, estimate)
        short = finite & (best.bound > np.where(best.bound > needed, enough, tolerated))
        feared = np.zeros_like(sigma) if quintic is None else np.minimum(quintic * step**4, estimate.rounding)
        outlook = replace(estimate, truncation=np.maximum(estimate.truncation, feared))
        following = next_step(outlook, enough, short, attempt, largest) if short.any() else None
        if following is None or attempt == TRIES - 1:
            break
        if not (finite & (best.bound > needed)).any():
            hoped = np.fmin(best.bound, predicted(outlook, np.array([following]))[0])
            if octaves(best.bound[short], enough[short]) - octaves(hoped[short], enough[short]) < WORTH:
                break
        if allowance is not None and not allowance.take(len(rungs)):
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
