"""GC701: one draw is shared by all steps. The gradient is right; the model may not be the one that was meant."""

from __future__ import annotations

from collections.abc import Iterable

from gradcheck.diagnosis.scene import Claim, Scene, finding, first_use
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Placement, Severity, Verdict


def shared_noise(scene: Scene) -> Iterable[Claim]:
    shared = [i for i in scene.case.inputs if i.placement is Placement.NON_SEQUENCE]
    checks = scene.checks(Verdict.PASS)
    if not shared or scene.case.steps < 2 or not checks:
        return

    def describe(part: list[Evidence]) -> Finding:
        names = ", ".join(i.name for i in shared)
        return finding(
            "GC701",
            part,
            "one draw is shared by all steps",
            Severity.ADVICE,
            because=f"{names} is placed as a non-sequence: all {scene.case.steps} steps see the same values",
            help=f"for fresh noise at every step:  noise: {{{shared[0].name}: {{placement: sequence}}}}",
            note="the gradients are right for the model as it is written",
            whose="the case",
            blame=first_use(scene.case, shared[0].name),
        )

    yield Claim("GC701", checks, describe)
