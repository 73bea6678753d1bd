"""GC205 a path that stop_gradient blocks, and GC703 a surrogate that is meant. Shown by letting gradients through it.

With stop_gradient replaced by the identity the gradient is that of the forward pass. If it then agrees with the differences, the
stop is the cause. Where the forward is stepwise, so that its true derivative is zero, a gradient that is not is a surrogate,
as of a straight-through estimator, and is meant.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from gradcheck.diagnosis.counterfactual import agreement
from gradcheck.diagnosis.scene import Claim, Scene, by, finding, line_blame, numbers, step_function, unique, worst
from gradcheck.evidence import Evidence
from gradcheck.model import Blame, Case, Finding, Severity, Verdict
from gradcheck.source import parse

BLOCKED_WHOLLY = "no gradient arrives because stop_gradient blocks every path"


def stopped(scene: Scene) -> Iterable[Claim]:
    """Blocked and surrogate gradients, each over all backends that show it."""
    if not stop_lines(scene.case):
        return
    suspects = [
        e
        for e in scene.checks(Verdict.MISMATCH, Verdict.DISCONNECTED)
        if not e.check.dead and "GC206" not in e.check.codes
    ]
    proven: dict[str, str] = {}
    blocked: list[Evidence] = []
    surrogate: list[Evidence] = []
    for group in by(suspects, lambda e: e.check.backend):
        opened = agreement(scene, group, replace(scene.case, open_stops=True), scene.arrays)
        if opened.explained:
            proven[group[0].check.backend] = opened.words
        for evidence in opened.explained:
            (surrogate if is_flat(evidence) else blocked).append(evidence)
    for evidence in surrogate:  # meant, and so not a mismatch: the observed code goes with the verdict
        evidence.check = replace(evidence.check, verdict=Verdict.PASS, codes=("GC703",), detection_limit=None)
    for evidence in blocked:
        if evidence.gradient.array is None or not evidence.gradient.array.any():
            evidence.check = replace(evidence.check, verdict=Verdict.DISCONNECTED)
    if blocked:
        yield Claim("GC205", blocked, partial(blocked_finding, scene, proven))
    if surrogate:
        yield Claim("GC703", surrogate, partial(surrogate_finding, scene, proven))


def is_flat(evidence: Evidence) -> bool:
    """Whether the forward does not move at all for small steps: its derivative is zero, whatever the analytic gradient."""
    i = evidence.objective_index
    return evidence.estimate is not None and not evidence.estimate.moved[i]


def blocked_finding(scene: Scene, proven: dict[str, str], checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    wholly = all(e.check.verdict is Verdict.DISCONNECTED for e in checks)
    backend = shown.check.backend
    return finding(
        "GC205",
        checks,
        BLOCKED_WHOLLY if wholly else "part of the gradient is blocked by stop_gradient",
        numbers=numbers(shown),
        because=f"the objective moves with these inputs through {places(scene.case)}, and no gradient comes back that way",
        proof=f"with stop_gradient as the identity, on {backend}, {proven[backend]}",
        help="remove the stop_gradient, or take these inputs out of `wrt`, or expect GC205 if the block is meant",
        note="every backend that stops gradients shows the same"
        if len(unique(e.check.backend for e in checks)) > 1
        else "",
        whose="the step",
        blame=stop_blame(scene.case),
    )


def surrogate_finding(scene: Scene, proven: dict[str, str], checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    backend = shown.check.backend
    return finding(
        "GC703",
        checks,
        "the gradient is a surrogate: the forward is stepwise, the gradient is not",
        Severity.ADVICE,
        numbers=numbers(shown),
        because=f"the objective does not move for small steps; {places(scene.case)} lets another gradient through instead",
        proof=f"with stop_gradient as the identity, on {backend}, {proven[backend]}: it is zero then",
        note="meant, as a straight-through estimator is: a difference of the forward cannot confirm it",
        whose="the step",
        blame=stop_blame(scene.case),
    )


def stop_lines(case: Case) -> list[int]:
    """Lines of the step's file that call stop_gradient; in the step itself first."""
    try:
        tree = parse(case.step_file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []
    step = step_function(case)
    roots: Sequence[ast.AST] = [step, tree] if step else [tree]
    found = [
        n.lineno for root in roots for n in ast.walk(root) if isinstance(n, ast.Attribute) and n.attr == "stop_gradient"
    ]
    return list(dict.fromkeys(found))


def stop_blame(case: Case) -> Blame | None:
    return line_blame(case.step_file, stop_lines(case)[0], "stop_gradient")


def places(case: Case) -> str:
    lines = ", ".join(map(str, stop_lines(case)))
    return f"the stop_gradient of line {lines}" if "," not in lines else f"the stop_gradients of lines {lines}"
