"""GC204 a constant factor and GC207 another order of entries: what the wrong gradient equals, tested along fresh directions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from gradcheck.diagnosis.scene import Claim, Scene, alike, finding, numbers, step_blame, worst
from gradcheck.diagnosis.wrong_rule import op_blame, op_proof
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Verdict
from gradcheck.numerics.fingerprint import name_factor


def fingerprints(scene: Scene) -> Iterable[Claim]:
    """Checks of one backend whose gradients equal the same thing. A scan that differs from its unroll has another cause."""
    known = [e for e in scene.checks(Verdict.MISMATCH) if e.fingerprint is not None and "GC208" not in e.check.codes]
    for group in alike(known, likeness):
        assert group[0].fingerprint is not None
        factor = group[0].fingerprint.kind == "factor"
        describe = factor_finding if factor else order_finding
        for evidence in group:
            if "culprit" in evidence.notes:
                codes = (*evidence.check.codes, "GC204" if factor else "GC207", "GC206")
                evidence.check = replace(evidence.check, codes=codes)
        yield Claim("GC204" if factor else "GC207", group, partial(describe, scene))


def likeness(evidence: Evidence) -> tuple[str, str, str]:
    assert evidence.fingerprint is not None
    return evidence.fingerprint.kind, evidence.fingerprint.words, f"{evidence.fingerprint.factor:.5g}"


def factor_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    assert shown.fingerprint is not None
    factor = shown.fingerprint.factor
    name = name_factor(factor, {"steps": scene.case.steps, **scene.case.dims})
    sign = name.startswith("-1")
    equals = f", which equals {name}" if name and not sign else ""
    return finding(
        "GC204",
        checks,
        "the gradient has the wrong sign" if sign else f"the gradient is {factor:.6g} times the right one",
        numbers=numbers(shown),
        because=f"analytic and reference have the same ratio along every direction: {factor:.6g}{equals}",
        proof=f"divided by it, the gradient agrees along three random directions to {shown.fingerprint.error:.0e}"
        + op_proof(shown),
        help="look for a sign in a reverse rule"
        if sign
        else "look for a mean where a sum is meant (or the reverse) in a reverse rule, or for a scaled loss",
        whose=whose(shown),
        blame=op_blame(shown) or step_blame(scene.case),
    )


def order_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    assert shown.fingerprint is not None
    words = shown.fingerprint.words
    return finding(
        "GC207",
        checks,
        f"the gradient is {words.split(' (')[0]}",
        numbers=numbers(shown),
        because=f"its entries are those of the right gradient in another order: {words}",
        proof=f"put in order, it agrees along three random directions to {shown.fingerprint.error:.0e}"
        + op_proof(shown),
        help="look at the reverse rule: transpose the product, or test it with shapes that are not square",
        whose=whose(shown),
        blame=op_blame(shown) or step_blame(scene.case),
    )


def whose(evidence: Evidence) -> str:
    culprit = evidence.notes.get("culprit")
    if culprit is None:
        return "the step or a function that it calls: likely its own reverse rule"
    return f"the reverse rule of {culprit.look.node.op}"
