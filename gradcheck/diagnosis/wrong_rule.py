"""GC206: an op, or a function with a reverse rule of its own, whose rule is not the derivative of its forward.

Shown by looking at the op alone at its run-time values. Where the rule is the user's, the derivative of the function's own
forward is put in its place: which gradients that puts right is the proof. A custom rule that gives a gradient to a stepwise
forward is a surrogate (GC703).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

from gradcheck.diagnosis.blame import Inspection, Look, called, inspected
from gradcheck.diagnosis.counterfactual import gradient_of, remaining_error
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, numbers, step_blame, unique, worst
from gradcheck.diagnosis.stopped import accept
from gradcheck.evidence import Evidence
from gradcheck.model import Blame, Finding, Severity, Verdict


@dataclass(frozen=True)
class Culprit:
    """A wrong op of one backend, and what the run with its rule replaced showed ("" if there was none)."""

    look: Look
    inspection: Inspection
    proof: str

    @property
    def key(self) -> tuple[str, str, int, bool]:
        node = self.look.node
        return node.op, node.file, node.line, self.look.flat


def wrong_rule(scene: Scene) -> Iterable[Claim]:
    """Wrong gradients whose wrong op is found, over all backends that show the same one. Those that may have a code of their own
    are left to its rule, which says this line, too: a fingerprint, and a rule that hands nothing back, as to a carry.
    """
    groups: dict[object, list[Evidence]] = {}
    for group in by(scene.unexplained(Verdict.MISMATCH), lambda e: e.check.backend):
        group = [e for e in group if "consensus" not in e.notes]  # differences do not see these
        if group:
            for evidence in culprits(scene, group):
                groups.setdefault(evidence.notes["culprit"].key, []).append(evidence)
    for checks in groups.values():
        if checks[0].notes["culprit"].look.flat:
            for evidence in checks:
                accept(evidence)
            yield Claim("GC703", checks, partial(surrogate_finding, scene))
        elif not share_fingerprint(checks) and not checks[0].notes["culprit"].look.hands_nothing:
            yield Claim("GC206", checks, partial(rule_finding, scene))


def wrong_rule_after_all(scene: Scene) -> Iterable[Claim]:
    """Those that were left to rules of other codes, and that these did not claim."""
    left = [e for e in scene.unexplained(Verdict.MISMATCH) if "culprit" in e.notes]
    for checks in by(left, lambda e: e.notes["culprit"].key):
        yield Claim("GC206", checks, partial(rule_finding, scene))


def add_rule(checks: list[Evidence], code: str) -> list[Evidence]:
    """Note GC206 after a cause's code with the checks for which a wrong rule is known."""
    for evidence in checks:
        if "culprit" in evidence.notes:
            added = (c for c in (code, "GC206") if c not in evidence.check.codes)
            evidence.check = replace(evidence.check, codes=(*evidence.check.codes, *added))
    return checks


def culprits(scene: Scene, group: list[Evidence]) -> list[Evidence]:
    """The checks of one backend that a wrong op explains; it is noted with each."""
    found = inspected(scene, group[0].check.backend)
    if not found.wrong:
        return []
    look = max(found.wrong, key=lambda k: (k.node.kind == "custom", k.worst.check.max_rel_error or 0.0))
    errors = {id(e): remaining_error(scene, e, gradient_of(found.mended, e)) for e in group} if found.mended else {}
    explained = [e for e in group if errors.get(id(e)) is not None] if errors else group
    known = [error for error in errors.values() if error is not None]
    proof = ""
    if known:
        all_of = f"all {len(known)} of these gradients agree" if len(known) > 1 else "the gradient agrees"
        proof = f"with the derivative of its own forward in place of the rule, {all_of} with the differences, to {max(known):.0e}"
    for evidence in explained:
        evidence.notes["culprit"] = Culprit(look, found, proof)
    return explained


def share_fingerprint(checks: list[Evidence]) -> bool:
    """Whether all of these gradients are wrong in the same way that has a name and a code of its own."""
    kinds = {
        (e.fingerprint.kind, e.fingerprint.words, f"{e.fingerprint.factor:.5g}")
        if e.fingerprint and e.fingerprint.tells_all
        else None
        for e in checks
    }
    return len(kinds) == 1 and None not in kinds


def rule_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    culprit: Culprit = shown.notes["culprit"]
    look, others = culprit.look, other_wrong(culprit)
    node = look.node
    own = node.kind == "custom"
    inside = f"; {look.inside}" if look.inside else ""
    return finding(
        "GC206",
        checks,
        f"the reverse rule of {node.op} is wrong",
        numbers=numbers(shown),
        because=f"{called(node)}, alone and at the values it has here: its reverse rule gives {look.words()}{inside}"
        + (f"; {look.instead}" if look.instead else "")
        + lost_words(shown),
        proof=proof(culprit),
        help="correct the rule; if the forward is made of ops that have rules, delete the custom one" if own else "write it "
        "with other ops, or report it to the framework",
        note="; ".join(n for n in (others, cleared(culprit)) if n),
        whose=f"the reverse rule of {node.op}" if own else "the framework's rule of the op",
        blame=node.blame or step_blame(scene.case),
    )  # fmt: skip


def proof(culprit: Culprit) -> str:
    return "; ".join(p for p in ("its own reverse rule was held against differences of it alone", culprit.proof) if p)


def op_blame(evidence: Evidence) -> Blame | None:
    """The line of the wrong op that explains a check; None if none is known to."""
    return evidence.notes["culprit"].look.node.blame if "culprit" in evidence.notes else None


def op_proof(evidence: Evidence) -> str:
    """The same as a clause of another rule's proof."""
    if "culprit" not in evidence.notes:
        return ""
    look = evidence.notes["culprit"].look
    instead = f"; {look.instead}" if look.instead else ""
    return f"; {called(look.node)}, alone: its reverse rule gives {look.words()}{instead}"


def lost_words(evidence: Evidence) -> str:
    """That one part of the op is all that its rule leaves out, where that explains this check."""
    lost = evidence.notes["culprit"].inspection.lost
    if lost is None or not lost.explains(evidence):
        return ""
    return f"; one branch is lost: {lost.equals()}"


def cleared(culprit: Culprit) -> str:
    count = len(culprit.inspection.cleared)
    many = (
        f"the {count} other ops that were looked at are right"
        if count > 1
        else "the other op is right"
        if count
        else ""
    )
    return many + culprit.look.at if many else ""


def other_wrong(culprit: Culprit) -> str:
    others = unique(
        f"{k.node.op} at {k.node.place}" for k in culprit.inspection.wrong if k.node.number != culprit.look.node.number
    )
    return f"wrong, too: {', '.join(others)}" if others else ""


def surrogate_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    culprit: Culprit = shown.notes["culprit"]
    node = culprit.look.node
    return finding(
        "GC703",
        checks,
        f"the gradient is a surrogate: the forward of {node.op} is stepwise, its rule is not",
        Severity.ADVICE,
        numbers=numbers(shown),
        because=f"{called(node)}, stands still for small steps and jumps for larger ones; "
        f"its reverse rule gives {culprit.look.words()}",
        proof=proof(culprit),
        note="meant, as a straight-through estimator is: a difference of the forward cannot confirm it",
        whose="the step",
        blame=node.blame,
    )
