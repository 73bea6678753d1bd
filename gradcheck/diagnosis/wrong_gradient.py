"""GC201: the gradient is wrong and no rule could show why. Says what is known: since when, where, compared with what.

GC208 where a scan's gradient is wrong and that of its steps, one after the other, is right: unrolled, or composed op by op.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from gradcheck.diagnosis.blame import composed_error, seen_op_by_op
from gradcheck.diagnosis.scene import Claim, Scene, alike, finding, numbers, step_blame, worst
from gradcheck.evidence import Evidence
from gradcheck.model import WHOLE, Finding, Verdict


def wrong_gradient(scene: Scene) -> Iterable[Claim]:
    for group in alike(scene.unexplained(Verdict.MISMATCH), lambda e: (scan_alone(scene, e), is_zero(e))):
        yield Claim("GC208" if scan_alone(scene, group[0]) else "GC201", group, lambda part: describe(scene, part))


def scan_alone(scene: Scene, evidence: Evidence) -> bool:
    """Whether it is the loop operator that differentiates wrongly, and not one of the ops in it."""
    is_scan = scene.lab.catalog[evidence.check.backend][1] == "scan"
    return "GC208" in evidence.check.codes or (is_scan and composed_error(scene, evidence) is not None)


def is_zero(evidence: Evidence) -> bool:
    return evidence.gradient.array is not None and not evidence.gradient.array.any()


def describe(scene: Scene, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    others = scene.passing(shown)
    zero = all(is_zero(e) for e in checks)
    because = "the cause is not established; "
    composed = composed_error(scene, shown)
    proofs = ["confirmed along a fresh random direction with a smaller step"] if "consensus" not in shown.notes else []
    if scan_alone(scene, shown):
        title = "the scan's gradient is wrong, that of its steps one by one is right"
        if shown.unrolled_passes:
            because += (
                "the unrolled gradient of the same framework is right, so likely the scan's own reverse rule is not"
            )
        if composed is not None:
            because = ""
            proofs.append(
                f"composed one by one from the ops' own rules the gradient agrees with the differences, to {composed:.0e}"
            )
    elif zero:
        because += "the gradient is 0 exactly though the objective moves: likely a stop_gradient or a cast on the way"
        title = "the gradient is zero though the objective moves"
    elif "consensus" in shown.notes:
        because += f"its own differences do not see the error, but all of {', '.join(others)} have another gradient"
        title = "the gradient is not the one that all other backends have"
    elif (nearby := shown.notes.get("no subgradient")) is not None:
        because += (
            f"the objective has a kink here, but none along this direction, where all {nearby} gradients close by have its slope "
            "and this one has not: it is no subgradient"
        )
        title = "the gradient at a kink is none of those that it may be"
    elif (part := part_title(checks)) is not None:
        title, why = part
        because += why
    else:
        because += (
            f"{', '.join(others)} pass on the same check" if others else "no backend that was run passes on this check"
        )
        title = "the gradient is wrong"
    ops, line = seen_op_by_op(scene, shown)
    because = "; ".join(part for part in (because, ops) if part)
    return finding(
        "GC208" if scan_alone(scene, shown) else "GC201",
        checks,
        title,
        numbers=numbers(shown),
        because=because,
        proof="; ".join(proofs),
        help="unroll the loop, or run a fixed number of steps and mask those after the end; and report it to the framework"
        if composed is not None and scan_alone(scene, shown)
        else "take the model apart: the same gradient of one part alone, until a part is wrong"
        if scene.case.native
        else "run the step for one time step (steps: 1): if the gradient is still wrong, a reverse rule in the step is",
        whose="the backend" if others or scan_alone(scene, shown) else "the step, or a function that it calls",
        blame=line or step_blame(scene.case),
    )


def part_title(checks: list[Evidence]) -> tuple[str, str] | None:
    """Title and reason where the errors of this gradient were all placed and are a part of it; None where they were not.

    Not for gradients by several inputs or of several objectives: one line cannot place the errors of all.
    """
    check, wrong = worst(checks).check, worst(checks).check.wrong
    alike = all((e.check.objective, e.check.parameter) == (check.objective, check.parameter) for e in checks)
    if wrong is None or not alike or wrong.region == WHOLE or not (wrong.exact or wrong.region):
        return None
    if not wrong.region:
        size = prod(check.shape)
        title = "one entry" if wrong.count == 1 else f"{wrong.count} entries"
        verb = "is" if wrong.count == 1 else "are"
        whose = "this entry's error alone explains" if wrong.count == 1 else "these entries' errors explain"
        return (
            f"{title} of {size} in the gradient {verb} wrong",
            f"{whose} what two random directions show; no other entry is seen to be wrong",
        )
    plural = wrong.region.startswith(("rows", "columns", "entries")) or " and " in wrong.region
    shown = wrong.shared.removeprefix("each is ") if "times the right one" in wrong.shared else "wrong"
    return (
        f"{wrong.region} of {check.parameter} {'are' if plural else 'is'} {shown}",
        f"outside {wrong.region} a random direction that had no part in finding the errors shows none",
    )
