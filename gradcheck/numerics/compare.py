"""Is the analytic directional derivative the reference's? A decision with a stated error."""

from __future__ import annotations

from dataclasses import dataclass

from gradcheck.model import Verdict

# A pass must be able to see an error of this share of the gradient along the probe; else it is no pass. Of a gradient's own
# rounding (float32) less is enough to refuse: where one unit in the last place moves it so much, the model is chaotic.
NEEDED_POWER, NEEDED_ROUNDING = 1e-2, 1e-3
# Smallest size of a direction's entry, relative to the tensor's scale (see directions.expand).
SMALLEST_ENTRY = 0.5
# How many times as far as rounding of the inputs moves a float32 gradient it may be off: LOOSE, and up to LOOSEST where that
# movement is a larger share of the gradient than CALM, as in chaotic models.
CALM, LOOSE, LOOSEST = 5e-6, 8.0, 64.0


def looseness(moved: float, norm: float) -> float:
    """The factor from LOOSE to LOOSEST. moved: how far one unit in the last place of the inputs moves a gradient of this norm.

    Over 3 500 probes of random RNNs, the error was at most 2.2 times that movement plus one eps where the movement was below
    1e-5 of the gradient, and up to 10 times where it was more and the model chaotic.
    """
    return min(LOOSEST, LOOSE * max(1.0, moved / norm / CALM)) if norm else LOOSEST


@dataclass(frozen=True, slots=True)
class Comparison:
    """All in objective units along the probe. allowed: bound plus tolerance. scale: the size that errors are relative to."""

    verdict: Verdict
    analytic: float
    reference: float
    error: float
    bound: float
    allowed: float
    scale: float

    def detection_limit(self, tensor_scale: float) -> float:
        """Smallest error of a single gradient entry that would have been seen for certain, in objective per parameter unit.

        The reference may be off by its bound in the wrong direction, so an error must exceed twice the bound plus the tolerance.
        """
        return (self.bound + self.allowed) / (SMALLEST_ENTRY * tensor_scale)


def compare(
    analytic: float, reference: float, bound: float, tolerance: float, scale: float, rounding: float = 0.0
) -> Comparison:
    """Judge g . v against its reference. scale: norm of g * v, or what stands in for it where g is zero.

    tolerance: what the user grants, which takes no power from a pass; rounding: what the gradient itself may be off by, which
    does, as the reference's bound does.
    """
    error = abs(analytic - reference)
    allowed = bound + tolerance + rounding
    if error > allowed:
        verdict = Verdict.MISMATCH
    elif (bound <= NEEDED_POWER * scale and rounding <= NEEDED_ROUNDING * scale) or (error == 0 and scale == 0):
        verdict = Verdict.PASS
    else:
        verdict = Verdict.INCONCLUSIVE
    return Comparison(verdict, analytic, reference, error, bound, allowed, scale)
