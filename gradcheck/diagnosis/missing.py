"""GC102, GC103, GC104, GC105: a gradient that is not there, and whether the objective moves all the same."""

from __future__ import annotations

from collections.abc import Iterable

from gradcheck.diagnosis.blame import Node, first_line, inspected, nodes_of
from gradcheck.diagnosis.counterfactual import held_against, with_own_derivative
from gradcheck.diagnosis.scene import Claim, Scene, alike, by, finding, numbers, step_blame, unique
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Severity, Verdict


def missing(scene: Scene) -> Iterable[Claim]:
    dead = scene.with_code("GC104")
    for group in by(dead, lambda e: (e.check.parameter, e.check.reason if e.check.verdict is Verdict.PASS else "")):
        yield Claim("GC104", group, lambda part: dead_finding(scene, part))
    gone = [e for e in scene.checks(Verdict.NULL, Verdict.DISCONNECTED) if "GC104" not in e.check.codes]
    for group in alike(gone, lambda e: (e.check.codes[0], e.check.reason)):
        yield Claim(group[0].check.codes[0], group, lambda part: gone_finding(scene, part))


def dead_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    saying = unique(e.check.backend for e in checks if e.check.verdict is Verdict.DISCONNECTED)
    say = "say" if len(saying) > 1 else "says"
    if not saying and checks[0].check.reason:
        return flat_finding(scene, checks)
    return finding(
        "GC104",
        checks,
        f"{checks[0].check.parameter} does not reach the objective",
        Severity.ADVICE,
        because="neither the gradient nor the objective moves, for small steps and for large ones",
        help="take it out of `wrt`, or connect it: a parameter that gets no gradient is never trained",
        note=f"{', '.join(saying)} {say} so; a framework that returns zeros means the same" if saying else "",
        whose="the step or the case",
        blame=step_blame(scene.case),
    )


def flat_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    name = checks[0].check.parameter
    return finding(
        "GC104",
        checks,
        f"the objective is flat in {name} at this point",
        Severity.ADVICE,
        because=f"{checks[0].check.reason}; for small steps neither the gradient nor the objective moves",
        help="if it is meant to train, start elsewhere: a unit that is off or clipped for all the data gets no gradient",
        note="the zero gradient is right",
        whose="the case: the point",
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
    refusing = refusing_ops(scene, first) if code in ("GC102", "GC105") else []
    said, seen = " ".join(first.check.reason.split()), ""
    if code == "GC105" and not refusing and (at_run_time := inspected(scene, first.check.backend).unlooked):
        node, why = at_run_time[0]
        seen = f"looked at alone: {why}"
        refusing = [node]
    if len(refusing) == 1 and refusing[0].file:
        said += f" ({refusing[0].op} at {refusing[0].place})"
        if refusing[0].kind == "custom":
            titles["GC105"] = f"no gradient because the reverse rule of {refusing[0].op} fails"
            helps["GC105"] = f"correct the reverse rule of {refusing[0].op}"
    exists = derivative_exists(scene, refusing, checks) if code in ("GC102", "GC105") else ""
    return finding(
        code,
        checks,
        titles[code],
        numbers=numbers(first),
        because=f"{first.check.backend} says: {said}" if said else "the framework returned nothing",
        proof="; ".join(part for part in (seen, exists) if part),
        help=helps[code],
        note=f"{', '.join(passing)} {'have' if len(passing) > 1 else 'has'} the right gradient" if passing else "",
        whose="the step, or the framework's rule for the op",
        blame=first_line(refusing) or step_blame(scene.case),
    )


def derivative_exists(scene: Scene, refusing: list[Node], checks: list[Evidence]) -> str:
    """That only the rule of these ops is missing: with the derivative of their own forward in its place there is a gradient."""
    known = [n for n in refusing if n.kind in ("op", "custom")]
    if not known or len(known) < len(refusing):
        return ""
    found = with_own_derivative(scene, checks[0].check.backend, {n.number for n in known})
    seen = held_against(scene, checks, found) if found else None
    if seen is None or not seen.explained:
        return ""
    ops = " and ".join(unique(n.op for n in known))
    return f"the derivative exists: with that of {ops} itself, by differences of it, in the place of the rule, {seen.words}"


def refusing_ops(scene: Scene, evidence: Evidence) -> list[Node]:
    """The ops on the way that reverse mode does not pass; those that give the check's own reason, where one does."""
    nodes = nodes_of(scene, evidence.check.backend, ("op", "custom", "opaque", "loop"))
    refusing = [n for n in nodes if n.why or n.kind in ("opaque", "loop")]
    return [n for n in refusing if evidence.check.reason and evidence.check.reason in n.why] or refusing
