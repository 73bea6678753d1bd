"""GC205 a path that stop_gradient blocks, and GC703 a surrogate that is meant. Shown by letting gradients through it.

With stop_gradient replaced by the identity the gradient is that of the forward pass. If it then agrees with the differences, the
stop is the cause. Where the forward is stepwise, so that its true derivative is zero, a gradient that is not is a surrogate,
as of a straight-through estimator, and is meant.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from gradcheck.diagnosis.blame import first_line, nodes_of
from gradcheck.diagnosis.counterfactual import Agreement, agreement, held_against
from gradcheck.diagnosis.scene import (
    Claim,
    Scene,
    by,
    finding,
    line_blame,
    numbers,
    step_function,
    step_tree,
    unique,
    worst,
)
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.model import Blame, Case, Finding, Severity, Verdict

BLOCKED_WHOLLY = "no gradient arrives because stop_gradient blocks every path"


def stopped(scene: Scene) -> Iterable[Claim]:
    """Blocked and surrogate gradients, each over all backends that show it."""
    suspects = [e for e in scene.unexplained(Verdict.MISMATCH, Verdict.DISCONNECTED) if not e.check.dead]
    proven: dict[str, str] = {}
    blocked: list[Evidence] = []
    surrogate: list[Evidence] = []
    for group in by(suspects, lambda e: e.check.backend):
        opened = (
            agreement(scene, group, replace(scene.case, open_stops=True), scene.arrays)
            if stop_lines(scene.case)
            else None
        )
        if opened is None or not opened.explained:
            opened = opened_op_by_op(scene, group)
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


def opened_op_by_op(scene: Scene, group: list[Evidence]) -> Agreement:
    """The same for stops that are not xp's: in the gradient composed op by op they are the identity, too."""
    backend = group[0].check.backend
    stops = nodes_of(scene, backend, ("stop",))
    if not stops:
        return Agreement([], "no stop_gradient is on the way")
    try:
        with scene.lab.session(scene.case, backend, scene.arrays) as session:
            if not session.can("composed"):
                return Agreement([], "this backend cannot compose a gradient op by op")
            gradients = session.composed(open_stops=True)
    except BackendError as error:
        return Agreement([], f"the counterfactual could not be run: {error.message}")
    opened = held_against(scene, group, gradients)
    for evidence in opened.explained:
        evidence.notes["stops"] = stops
    return opened


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
        because=f"the objective moves with these inputs through {places(scene.case, shown)}, and no gradient comes back that way",
        proof=f"with stop_gradient as the identity, on {backend}, {proven[backend]}",
        help="remove the stop_gradient, or take these inputs out of `wrt`, or expect GC205 if the block is meant",
        note="every backend that stops gradients shows the same"
        if len(unique(e.check.backend for e in checks)) > 1
        else "",
        whose="the step",
        blame=stop_blame(scene.case, shown),
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
        because=f"the objective does not move for small steps; {places(scene.case, shown)} lets another gradient through instead",
        proof=f"with stop_gradient as the identity, on {backend}, {proven[backend]}: it is zero then",
        note="meant, as a straight-through estimator is: a difference of the forward cannot confirm it",
        whose="the step",
        blame=stop_blame(scene.case, shown),
    )


def stop_lines(case: Case) -> list[int]:
    """Lines of the step's file that call stop_gradient; in the step itself first."""
    roots: list[ast.AST] = [root for root in (step_function(case), step_tree(case)) if root is not None]
    called = [n for root in roots for n in ast.walk(root) if isinstance(n, ast.Attribute | ast.Name)]
    found = [n.lineno for n in called if (n.attr if isinstance(n, ast.Attribute) else n.id) == "stop_gradient"]
    return list(dict.fromkeys(found))


def stop_blame(case: Case, evidence: Evidence) -> Blame | None:
    if "stops" in evidence.notes:
        return first_line(evidence.notes["stops"])
    return line_blame(case.step_file, stop_lines(case)[0], "stop_gradient")


def places(case: Case, evidence: Evidence) -> str:
    lines = (
        list(dict.fromkeys(n.line for n in evidence.notes["stops"])) if "stops" in evidence.notes else stop_lines(case)
    )
    shown = ", ".join(map(str, lines))
    return f"the stop_gradients of lines {shown}" if len(lines) > 1 else f"the stop_gradient of line {shown}"
