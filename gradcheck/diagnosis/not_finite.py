"""GC303 the forward is not finite, and gradients that are not finite though the forward is (GC301 until the cause is known)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gradcheck.diagnosis.scene import Claim, Scene, alike, by, finding, numbers, step_blame
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Verdict


def not_finite(scene: Scene) -> Iterable[Claim]:
    checks = scene.checks(Verdict.NONFINITE)
    forward = [e for e in checks if "GC303" in e.check.codes]
    for group in by(forward, lambda e: e.check.objective):
        yield Claim("GC303", group, lambda part: forward_finding(scene, part))
    for group in alike((e for e in checks if "GC301" in e.check.codes), lambda e: "GC301"):
        yield Claim("GC301", group, lambda part: gradient_finding(scene, part))


def forward_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    first = checks[0]
    result = next(r for r in scene.results if r.backend == first.check.backend)
    value = "not finite" if result.values is None else str(float(result.values[first.objective_index]))
    return finding(
        "GC303",
        checks,
        f"the objective itself is {value}",
        numbers=(("forward", value),),
        because="the forward pass gives a value that is not finite, so there is nothing to differentiate",
        help="make the forward pass finite first: look for overflow, a logarithm of 0 or a division by 0 in the step",
        whose="the step or its data",
        blame=step_blame(scene.case),
    )


def gradient_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    first = checks[0]
    bad = int((~np.isfinite(first.gradient.array)).sum()) if first.gradient.array is not None else 0
    size = int(np.prod(first.check.shape))
    return finding(
        "GC301",
        checks,
        "the gradient is not finite though the forward pass is",
        numbers=(*numbers(first), ("not finite", f"{bad} of {size} entries of {first.check.parameter}")),
        because="the cause is not established; likely a branch that `where` did not select, or a singular point such as sqrt(0)",
        help="look in the step for where, sqrt, log, a division or a norm, and keep its argument away from the singular point",
        whose="the step, unless another framework's gradient is finite at the same point",
        blame=step_blame(scene.case),
    )
