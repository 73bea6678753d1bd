"""Second order: what is wrong with a Hessian-vector product whose gradient is right. Says what was observed, no more.

The rules of first order look into the case's own rollout, which is not what is differentiated here; so none of them applies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from gradcheck.diagnosis.could_not_run import could_not_run
from gradcheck.diagnosis.scene import Claim, Scene, alike, finding, numbers, step_blame, worst
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Severity, Verdict

TITLES = {
    "GC101": "no second derivative through a random draw in the scanned step",
    "GC102": "no second derivative: a reverse rule cannot be differentiated itself",
    "GC103": "no second derivative arrives though the gradient moves",
    "GC105": "the framework refuses to differentiate the gradient",
    "GC201": "the second derivative is wrong though the gradient is right",
    "GC206": "the second derivative is not linear in the cotangent though the gradient is right",
    "GC301": "the second derivative is not finite though the gradient is",
    "GC303": "the gradient along a random direction is not finite",
    "GC401": "the gradient is stepwise in this input",
    "GC402": "the gradient has a kink here",
    "GC403": "rounding hides the second derivative",
    "GC404": "differences of the gradient do not converge",
    "GC501": "the gradient along a random direction changes between equal calls",
    "GC502": "the second derivative changes between equal calls",
}
HELP = {
    Verdict.NULL: "write the reverse rule in operations that the framework differentiates; draw noise outside the loop",
    Verdict.DISCONNECTED: "look in custom reverse rules for values that are cut from the graph",
    Verdict.MISMATCH: "look at custom reverse rules: they are differentiated here, with all that they saved",
    Verdict.NONFINITE: "keep arguments of sqrt, log and powers away from where the second derivative is infinite",
    Verdict.NONDETERMINISTIC: "make the gradient repeatable first",
    Verdict.INCONCLUSIVE: "nothing to change: use first-order checks, or another seed",
}
WHOSE = {
    Verdict.NULL: "the framework, or a reverse rule that the step uses",
    Verdict.INCONCLUSIVE: "the case: a property of its gradient at this point",
}


def second_order(scene: Scene) -> Iterable[Claim]:
    """Checks of second order with the same codes and the same words of the framework, over all backends that show them."""
    for claim in could_not_run(replace(scene, results=scene.second)):
        yield replace(claim, describe=partial(relabelled, claim.describe))
    odd = [e for r in scene.second if r.error is None for e in r.checks if e.check.verdict is not Verdict.PASS]
    for group in alike(odd, lambda e: (e.check.codes, e.check.reason if e.check.verdict is Verdict.NULL else "")):
        yield Claim(group[0].check.codes[-1], group, lambda part: describe(scene, part))


def relabelled(describe: Callable[[list[Evidence]], Finding], checks: list[Evidence]) -> Finding:
    return labelled(describe(checks))


def labelled(found: Finding) -> Finding:
    return replace(found, order=2, note=found.note or "the gradient itself was judged before, and passed")


def describe(scene: Scene, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    code, verdict, said = shown.check.codes[-1], shown.check.verdict, " ".join(shown.check.reason.split())
    observed = {
        Verdict.NULL: f"{shown.check.backend} says: {said}" if said else "the framework returned nothing",
        Verdict.MISMATCH: "the derivative of gradient . w (w: a fixed random direction of all inputs), taken by the framework, "
        "is not what differences of gradient . w show",
        Verdict.DISCONNECTED: "the framework finds no path from here to gradient . w (w: a fixed random direction), which moves",
    }
    inconclusive = verdict is Verdict.INCONCLUSIVE
    found = finding(
        code,
        checks,
        TITLES[code],
        Severity.INCONCLUSIVE if inconclusive else Severity.ERROR,
        numbers=numbers(shown),
        because=observed.get(verdict, said or "it was observed; the cause is not established"),
        proof="confirmed along a fresh random direction with a smaller step" if "GC201" in shown.check.codes else "",
        help=HELP[verdict],
        note="the gradient itself is right: only what differentiates it again is affected",
        whose=WHOSE.get(verdict, "the step, or a reverse rule that it uses"),
        blame=None if inconclusive else step_blame(scene.case),
    )
    return labelled(found)
