"""GC204 a constant factor, GC207 another order of entries, GC201 a sum over an axis or a lower precision: what the wrong gradient
equals, tested along fresh directions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from gradcheck.diagnosis.scene import Claim, Scene, alike, finding, numbers, step_blame, worst
from gradcheck.diagnosis.wrong_rule import add_rule, op_blame, op_proof
from gradcheck.evidence import Evidence
from gradcheck.model import Case, Finding, Verdict
from gradcheck.numerics.fingerprint import Fingerprint, name_factor

CODES = {"factor": "GC204", "order": "GC207", "sum": "GC201", "precision": "GC201"}
CLOSE = 1e-6  # of a factor: how well the ratio of a single entry has to fit to count as the same


def fingerprints(scene: Scene) -> Iterable[Claim]:
    """Checks of one backend whose gradients equal the same thing. A scan that differs from its unroll has another cause."""
    known = [e for e in scene.unexplained(Verdict.MISMATCH) if "GC208" not in e.check.codes]
    of_one_entry(known)
    for group in alike([e for e in known if e.fingerprint is not None], likeness):
        assert group[0].fingerprint is not None
        code = CODES[group[0].fingerprint.kind]
        yield Claim(code, add_rule(group, code), partial(DESCRIBE[group[0].fingerprint.kind], scene))


def of_one_entry(known: list[Evidence]) -> None:
    """A gradient of one entry is some multiple of the right one, whatever is wrong: it says nothing by itself, but may have the
    factor that larger ones of its backend have.
    """
    for evidence in known:
        comparison, array = evidence.comparison, evidence.gradient.array
        if evidence.fingerprint is not None or comparison is None or array is None or array.size != 1:
            continue
        for other in known:
            found = other.fingerprint
            if found is None or found.kind != "factor" or other.check.backend != evidence.check.backend:
                continue
            error = abs(comparison.analytic / found.factor - comparison.reference)
            if error <= comparison.bound + CLOSE * abs(comparison.reference):
                evidence.fingerprint = replace(found, error=error / (abs(comparison.reference) or 1.0))
                break


def likeness(evidence: Evidence) -> tuple[str, str, str]:
    assert evidence.fingerprint is not None
    return evidence.fingerprint.kind, evidence.fingerprint.words, f"{evidence.fingerprint.factor:.5g}"


def factor_words(case: Case, factor: float) -> str:
    """ "1/batch" and the like, "" where the factor has no name."""
    return name_factor(factor, {"steps": case.steps, **case.dims})


def recognised(evidence: Evidence) -> Fingerprint:
    assert evidence.fingerprint is not None
    return evidence.fingerprint


def factor_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    factor = recognised(shown).factor
    name = factor_words(scene.case, factor)
    sign = name.startswith("-1 ")
    equals = f", which equals {name}" if name and not sign else ""
    return finding(
        "GC204",
        checks,
        "the gradient has the wrong sign" if sign else f"the gradient is {factor:.6g} times the right one",
        numbers=numbers(shown),
        because=f"analytic and reference have the same ratio along every direction: {factor:.6g}{equals}",
        proof=f"divided by it, the gradient agrees along three random directions to {recognised(shown).error:.0e}"
        + op_proof(shown),
        help="look for a sign in a reverse rule"
        if sign
        else "look for a loss scale that is not divided out again"
        if "loss scale" in name
        else "look for a mean where a sum is meant (or the reverse) in a reverse rule, or for a scaled loss",
        whose=whose(shown),
        blame=op_blame(shown) or step_blame(scene.case),
    )


def order_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    words, factor = recognised(shown).words, recognised(shown).factor
    name = factor_words(scene.case, factor)
    times = "" if factor == 1 else f" and {factor:.6g} times the right one"
    if name.startswith("-1 "):
        times = " and has the wrong sign"
    equals = "" if factor == 1 else f", times {factor:.6g}" + (f", which equals {name}" if name else "")
    return finding(
        "GC207",
        checks,
        f"the gradient is {words.split(' (')[0]}{times}",
        numbers=numbers(shown),
        because=f"its entries are those of the right gradient in another order: {words}{equals}",
        proof=f"put in order{'' if factor == 1 else ' and divided by the factor'}, it agrees along three random directions "
        f"to {recognised(shown).error:.0e}" + op_proof(shown),
        help="look at the reverse rule: transpose the product, or test it with shapes that are not square",
        whose=whose(shown),
        blame=op_blame(shown) or step_blame(scene.case),
    )


def sum_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    words = recognised(shown).words
    return finding(
        "GC201",
        checks,
        f"each entry of the gradient is {words} of the right one",
        numbers=numbers(shown),
        because=f"its entries do not change along that axis, and each equals {words} of what the differences give there",
        proof=f"along two random directions that do not change along it, it agrees to {recognised(shown).error:.0e}"
        + op_proof(shown),
        help="look for a sum or a mean over too many axes in a reverse rule, which broadcasting then hides",
        whose=whose(shown),
        blame=op_blame(shown) or step_blame(scene.case),
    )


def precision_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    name = recognised(shown).words
    return finding(
        "GC201",
        checks,
        f"the gradient is right only as rounded to {name}",
        numbers=numbers(shown),
        because=f"each of its entries, of dtype {shown.check.dtype}, is a number that {name} holds exactly",
        proof=f"along three random directions it is off by {recognised(shown).error:.0e} or less, no more than rounding the "
        f"right gradient to {name} explains" + op_proof(shown),
        help=f"look for a cast to {name} on the way back: in a reverse rule, or a buffer for gradients",
        whose=whose(shown),
        blame=op_blame(shown) or step_blame(scene.case),
    )


DESCRIBE = {"factor": factor_finding, "order": order_finding, "sum": sum_finding, "precision": precision_finding}


def whose(evidence: Evidence) -> str:
    culprit = evidence.notes.get("culprit")
    if culprit is None:
        return "the step or a function that it calls: likely its own reverse rule"
    return f"the reverse rule of {culprit.look.node.op}"
