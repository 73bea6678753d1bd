"""GC702: a right gradient that vanishes or explodes over time. Read off the gradient by a sequence, which has a time axis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradcheck.diagnosis.scene import Claim, Scene, alike, finding, number, step_blame
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Role, Severity, Verdict

EXTREME = 1e6  # between the first step and the last: in float32 nothing would be left of the smaller one
FEWEST = 4  # steps that something arrives at: fewer show no trend


@dataclass(frozen=True)
class Trend:
    """The size (root mean square) of what arrives at each step of a sequence. first: the earliest step that anything reaches."""

    sizes: NDArray[np.float64]
    first: int

    @property
    def ratio(self) -> float:
        """What arrives at the earliest step over what arrives at the last."""
        return float(self.sizes[self.first] / self.sizes[-1])

    @property
    def per_step(self) -> float:
        """The geometric mean of the factors from one step to the one before it."""
        return float(self.ratio ** (1 / (len(self.sizes) - 1 - self.first)))

    @property
    def word(self) -> str:
        return "vanishes" if self.ratio < 1 else "explodes"


def over_time(scene: Scene) -> Iterable[Claim]:
    told = [e for e in scene.checks(Verdict.PASS) if trend(scene, e) is not None]
    for group in alike(told, lambda e: word(scene, e)):
        yield Claim("GC702", group, lambda part: describe(scene, part))


def word(scene: Scene, evidence: Evidence) -> str:
    found = trend(scene, evidence)
    return found.word if found else ""


def trend(scene: Scene, evidence: Evidence) -> Trend | None:
    """The trend of a gradient by a sequence, if it is extreme; None if it is not, or cannot be seen.

    Of an objective over all steps every step gets a part of its own, so that only an explosion shows.
    """
    case, array = scene.case, evidence.gradient.array
    if case.native or array is None or array.ndim == 0 or evidence.check.order != 1:
        return None
    if case.input(evidence.check.parameter).role is not Role.SEQUENCE:
        return None
    flat = np.abs(array.reshape(len(array), -1)).astype(np.float64)
    largest = flat.max(initial=0.0)
    if not np.isfinite(largest) or largest == 0.0:
        return None
    sizes = largest * np.sqrt(np.mean((flat / largest) ** 2, axis=1))
    at = case.objectives[evidence.objective_index].at
    sizes = sizes[: at + 1] if isinstance(at, int) else sizes
    reached = np.flatnonzero(sizes)
    if len(reached) < FEWEST or sizes[-1] == 0.0:
        return None
    found = Trend(sizes, int(reached[0]))
    extreme = found.ratio > EXTREME or (at != "all" and found.ratio < 1 / EXTREME)
    return found if extreme else None


def describe(scene: Scene, checks: list[Evidence]) -> Finding:
    shown = checks[0]
    found = trend(scene, shown)
    assert found is not None
    name, last = shown.check.parameter, len(found.sizes) - 1
    none = f"; nothing reaches steps 0 to {found.first - 1}" if found.first else ""
    return finding(
        "GC702",
        checks,
        f"the gradient {found.word} over time",
        Severity.ADVICE,
        numbers=(
            (f"at step {last}", f"{number(float(found.sizes[-1]))}   root mean square of d {name}[{last}]"),
            (f"at step {found.first}", number(float(found.sizes[found.first]))),
            ("per step", f"x {found.per_step:.3g}, in the geometric mean{none}"),
        ),
        because=f"what reaches {name} at step {found.first} is {found.ratio:.1e} times what reaches it at step {last}: going "
        "back, the step's Jacobian multiplies the adjoint at every step",
        help="recurrent weights that keep the state's size (orthogonal ones), gates (a GRU's update gate with a bias of one), or "
        "fewer steps" + ("" if found.ratio < 1 else "; clip the gradient"),
        note="the gradient is right; harmless if the model is meant to forget"
        if found.ratio < 1
        else "the gradient is right",
        whose="the step, or the values of its parameters",
        blame=step_blame(scene.case),
    )
