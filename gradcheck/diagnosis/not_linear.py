"""GC206, from outside: the gradient is not proportional to the cotangent that the reverse pass starts from, so a rule is wrong.

A rule that is tested with the cotangent 1 alone may ignore it, square it or add to it. Here the reverse pass is run from two
cotangents; both runs repeat to the bit. Which op it is shows in the same way: each op alone, where the backend lets one look.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from gradcheck.diagnosis.blame import Look, called, inspected
from gradcheck.diagnosis.scene import Claim, Scene, alike, finding, number, numbers, step_blame, worst
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Verdict


def not_linear(scene: Scene) -> Iterable[Claim]:
    """Checks whose reverse pass was seen not to be linear, over all backends that show it."""
    seen = [e for e in scene.checks(Verdict.MISMATCH) if "cotangents" in e.notes]
    for group in alike(seen, lambda e: "GC201" in e.check.codes):
        yield Claim("GC206", group, partial(describe, scene))


def describe(scene: Scene, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    index, one, cotangent, per_unit = shown.notes["cotangents"]
    where = f"{shown.check.parameter}[{', '.join(map(str, index))}]" if index else shown.check.parameter
    look = culprit(scene, shown)
    right_at_one = shown.comparison is not None and shown.comparison.verdict is Verdict.PASS
    of_op = f" of {look.node.op}" if look else ""
    return finding(
        "GC206",
        checks,
        f"wrong reverse rule{of_op}: not linear in the cotangent",
        numbers=(
            ("at cotangent 1", f"{number(one)}   {where}"),
            (f"at cotangent {cotangent:g}", f"{number(per_unit * cotangent)}, divided by it {number(per_unit)}"),
            *numbers(shown),
        ),
        because=f"from the cotangent {cotangent:g} the reverse pass does not return {cotangent:g} times what it returns from 1"
        + ("; from 1 it agrees with the reference" if right_at_one else "")
        + (f"; {called(look.node)}, alone: its reverse rule gives {look.words()}" if look else ""),
        proof="two reverse passes from each cotangent, at the same point: each repeats",
        help="look at custom reverse rules for a cotangent that is left out, squared, added to or clipped",
        note="right for this objective, wrong for the same one times a constant" if right_at_one else "",
        whose=f"the reverse rule of {look.node.op}"
        if look
        else "the step or a function that it calls: a reverse rule of its own",
        blame=(look.node.blame if look else None) or step_blame(scene.case),
    )


def culprit(scene: Scene, evidence: Evidence) -> Look | None:
    """The op whose own rule is not linear, custom ones first; None if none was seen."""
    found = [look for look in inspected(scene, evidence.check.backend).wrong if look.is_nonlinear]
    return min(found, key=lambda look: look.node.kind != "custom", default=None)
