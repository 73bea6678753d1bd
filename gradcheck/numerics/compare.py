"""Is the analytic directional derivative the reference's? A decision with a stated error."""

from __future__ import annotations

from dataclasses import dataclass

from gradcheck.model import Verdict

# A pass must be able to see an error of this share of the gradient along the probe; else it is no pass. Of a gradient's own
# rounding (float32) less is enough to refuse: where one unit in the last place moves it so much, the model is chaotic.
NEEDED_POWER, NEEDED_ROUNDING = 1e-2, 1e-3
# Smallest size of a direction's entry, relative to the tensor's scale (see directions.expand).
SMALLEST_ENTRY = 0.5


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
