"""GC103 and GC205 where a loop computes a copy of what is differentiated: no gradient comes back from there.

A framework that takes the step's graph apart hands a loop what an expression around it is made of, and computes the expression
anew inside. Shown by handing the expression itself in: the same model, whose gradient is then right.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from gradcheck.diagnosis.counterfactual import Agreement
from gradcheck.diagnosis.loops import Loops, blame, loops_of, place
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, numbers, step_blame, unique, worst
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Verdict


def own_copy(scene: Scene) -> Iterable[Claim]:
    suspects = [e for e in scene.unexplained(Verdict.MISMATCH, Verdict.DISCONNECTED) if not e.check.dead]
    for group in by(suspects, lambda e: e.check.backend):
        loops = loops_of(scene, group[0].check.backend)
        copied = {copy["input"] for copy in loops.copies}
        checks = [e for e in group if e.check.parameter in copied]
        seen = loops.held(scene, checks, handed=True) if checks else Agreement([], "")
        for alike in by(seen.explained, lambda e: (e.check.verdict, e.check.parameter)):
            code = "GC103" if alike[0].check.verdict is Verdict.DISCONNECTED else "GC205"
            yield Claim(code, alike, partial(describe, scene, loops, seen))


def describe(scene: Scene, loops: Loops, seen: Agreement, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    name, wholly = shown.check.parameter, shown.check.verdict is Verdict.DISCONNECTED
    copies = [copy for copy in loops.copies if copy["input"] == name]
    sources = unique(source for copy in copies for source in copy["sources"])
    from_what = f", from {' and '.join(sources)}," if sources else ""
    scans = " and ".join(unique(place(copy) for copy in copies if copy["file"]))
    expression = copies[0]["expression"]
    itself = f"{name} (the expression at {place(expression)})" if expression["file"] else name
    return finding(
        "GC103" if wholly else "GC205",
        checks,
        f"no gradient by {name}: the scan computes a copy of it"
        if wholly
        else f"part of the gradient by {name} is missing: the scan computes a copy of it",
        numbers=numbers(shown),
        because=f"the step of the scan{f' at {scans}' if scans else ''} reads {itself} from around it; the scan computes its own "
        f"copy{from_what} in every step, so the outer one is no input of the scan and no gradient by it comes back",
        proof=f"with {name} handed in as an input of the scan {seen.words_for(checks)}",
        help="pass it through `non_sequences`, and let the step read its argument"
        + (f"\nor differentiate with respect to {' and '.join(sources)}" if sources else ""),
        note="the objective moves with it: it is not dead",
        whose="the step",
        blame=blame(copies[0], "scan") or blame(expression, name) or step_blame(scene.case),
    )
