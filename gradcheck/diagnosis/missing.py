"""GC102, GC103, GC104, GC105: a gradient that is not there, and whether the objective moves all the same."""

from __future__ import annotations

from collections.abc import Iterable

from gradcheck.diagnosis.blame import first_line, nodes_of
from gradcheck.diagnosis.scene import Claim, Scene, alike, by, finding, numbers, step_blame
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Severity, Verdict


def missing(scene: Scene) -> Iterable[Claim]:
    dead = scene.with_code("GC104")
    for group in by(dead, lambda e: e.check.parameter):
        yield Claim("GC104", group, lambda part: dead_finding(scene, part))
    gone = [e for e in scene.checks(Verdict.NULL, Verdict.DISCONNECTED) if "GC104" not in e.check.codes]
    for group in alike(gone, lambda e: (e.check.codes[0], e.check.reason)):
        yield Claim(group[0].check.codes[0], group, lambda part: gone_finding(scene, part))


def dead_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    saying = [e.check.backend for e in checks if e.check.verdict is Verdict.DISCONNECTED]
    return finding(
        "GC104",
        checks,
        f"{checks[0].check.parameter} does not reach the objective",
        Severity.ADVICE,
        because="neither the gradient nor the objective moves, for small steps and for large ones",
        help="take it out of `wrt`, or connect it: a parameter that gets no gradient is never trained",
        note=f"{', '.join(dict.fromkeys(saying))} says so; a framework that returns zeros means the same"
        if saying
        else "",
        whose="the step or the case",
        blame=step_blame(scene.case),
    )


def gone_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    code, first = checks[0].check.codes[0], checks[0]
    titles = {
        "GC101": "no gradient through a random draw in the scanned step",
        "GC102": "no gradient because an op has no reverse rule",
        "GC103": "no gradient arrives though the objective moves",
        "GC105": "the framework refuses to differentiate this in reverse mode",
    }
    helps = {
        "GC101": "draw outside the loop (placement: sequence), or return the draw from the step",
        "GC102": "replace the op by one that has a reverse rule, or write the rule",
        "GC103": "look for what cuts the path: stop_gradient, a cast to integers, a copy of the value",
        "GC105": "use a loop with a fixed number of steps, or forward mode",
    }
    passing = scene.passing(first)
    kinds = {"GC105": ("loop",), "GC102": ("opaque",)}.get(code)
    culprit = first_line(nodes_of(scene, first.check.backend, kinds)) if kinds else None
    said = " ".join(first.check.reason.split())
    return finding(
        code,
        checks,
        titles[code],
        numbers=numbers(first),
        because=f"{first.check.backend} says: {said}" if said else "the framework returned nothing",
        help=helps[code],
        note=f"{', '.join(passing)} have the right gradient" if passing else "",
        whose="the step, or the framework's rule for the op",
        blame=culprit or step_blame(scene.case),
    )
