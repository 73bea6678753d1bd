"""GC701: one draw is shared by all steps. The gradient is right; the model may not be the one that was meant."""

from __future__ import annotations

from collections.abc import Iterable

from gradcheck.diagnosis.blame import Node, nodes_of
from gradcheck.diagnosis.scene import Claim, Scene, finding, first_use, unique
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Placement, Severity, Verdict


def shared_noise(scene: Scene) -> Iterable[Claim]:
    yield from shared_in_native(scene)
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


def shared_in_native(scene: Scene) -> Iterable[Claim]:
    """The same of a model that draws for itself: looked into only if its program looks as if a draw were shared."""
    checks = scene.checks(Verdict.PASS)
    if not scene.case.native_shared_draws or not checks:
        return
    shared = [
        n for name in unique(e.check.backend for e in checks) for n in nodes_of(scene, name, ("draw",), active=False)
    ]
    shared = [n for n in shared if n.shared]
    if shared:
        yield Claim("GC701", checks, lambda part: native_finding(shared, part))


def native_finding(shared: list[Node], part: list[Evidence]) -> Finding:
    places = unique(f"{n.op} at {n.place}" for n in shared)
    gives = "gives" if len(places) == 1 else "give"
    return finding(
        "GC701",
        part,
        "one draw is shared by all steps",
        Severity.ADVICE,
        because=f"{' and '.join(places)} {gives} the same numbers at all {shared[0].steps} steps of the loop",
        help="for fresh noise at every step split the key, or draw with time as the first axis, and scan over that",
        note="the gradients are right for the model as it is written; one mask for all steps may be meant (variational dropout)",
        whose="the step",
        blame=shared[0].blame,
    )
