"""GC205 a path that stop_gradient blocks, and GC703 a surrogate that is meant. Shown by letting gradients through it.

With stop_gradient replaced by the identity the gradient is that of the forward pass. If it then agrees with the differences, the
stop is the cause. Where the forward is stepwise, so that its true derivative is zero, a gradient that is not is a surrogate,
as of a straight-through estimator, and is meant. So is one whose stops all hold back a stepwise value, or a target that the
prediction is held against: that is shown by differences of the forward with what the stops return held fixed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from gradcheck.diagnosis.blame import Node, first_line, nodes_of
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
from gradcheck.examine import probe_key
from gradcheck.model import Blame, Case, Finding, Severity, Verdict
from gradcheck.session import Session

FROZEN = 1e-6  # of the gradient along the probe: how well it has to agree with differences under held stops
WHY = {
    "stepwise": ("what it stops moves in steps", "meant, as a straight-through estimator is"),
    "target": (
        "what it stops is a target that a prediction is held against",
        "meant, as a target that is not trained is",
    ),
}


def stopped(scene: Scene) -> Iterable[Claim]:
    """Blocked and surrogate gradients, each over all backends that show it."""
    suspects = [e for e in scene.unexplained(Verdict.MISMATCH, Verdict.DISCONNECTED) if not e.check.dead]
    proven: dict[str, Agreement] = {}
    cut: list[Evidence] = []
    for group in by(suspects, lambda e: e.check.backend):
        xp_stops = bool(stop_lines(scene.case))
        opened = (
            agreement(scene, group, replace(scene.case, open_stops=True), scene.arrays)
            if xp_stops
            else Agreement([], "")
        )
        if not opened.explained:
            opened = opened_op_by_op(scene, group)
        if opened.explained:
            proven[group[0].check.backend] = opened
        for evidence in opened.explained:
            evidence.notes["stops"] = stops_before(scene, evidence)
        cut += opened.explained
        cut += held_fixed(scene, [e for e in group if not any(e is known for known in opened.explained)])
    as_meant = meant(scene, [e for e in cut if not is_flat(e)])
    surrogate = [e for e in cut if is_flat(e) or e in as_meant]
    blocked = [e for e in cut if e not in surrogate]
    for evidence in surrogate:
        accept(evidence)
    for evidence in blocked:
        if any(n.recurrent for n in evidence.notes["stops"]) and "GC203" not in evidence.check.codes:
            evidence.check = replace(evidence.check, codes=(*evidence.check.codes, "GC205", "GC203"))
        if evidence.gradient.array is None or not evidence.gradient.array.any():
            evidence.check = replace(evidence.check, verdict=Verdict.DISCONNECTED)
    for code, found, describe in (("GC205", blocked, blocked_finding), ("GC703", surrogate, surrogate_finding)):
        for group in by(found, cause):
            yield Claim(code, group, partial(describe, scene, proven))


def cause(evidence: Evidence) -> object:
    """What tells one stop from another: the lines, where they are known, and why they are meant."""
    lines = tuple((n.file, n.line) for n in evidence.notes["stops"])
    return lines, evidence.notes.get("meant", ("",))[0], "held" in evidence.notes


def accept(evidence: Evidence) -> None:
    """Take a surrogate for what it is: not a mismatch, so that the observed code and the wrong entries go with the verdict."""
    evidence.check = replace(evidence.check, verdict=Verdict.PASS, codes=("GC703",), detection_limit=None, wrong=None)


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
    return held_against(scene, group, gradients)


def held_fixed(scene: Scene, checks: Sequence[Evidence]) -> list[Evidence]:
    """Those of one backend's checks whose gradient is that of the forward with what its stops return held fixed, where stops
    cannot be opened: a number that was read off, say. How well: in notes["held"].
    """
    found = []
    for evidence in checks:
        evidence.notes["stops"] = stops_before(scene, evidence)
    suspects = [
        e for e in checks if e.notes["stops"] and e.estimate is not None and e.estimate.step > 0 and not is_flat(e)
    ]
    if suspects:
        try:
            with scene.lab.session(scene.case, checks[0].check.backend, scene.arrays) as session:
                for evidence in suspects if session.can("frozen") else ():
                    if (miss := frozen_miss(scene, session, evidence)) is not None:
                        evidence.notes["held"] = miss
                        found.append(evidence)
        except BackendError:
            pass
    return found


def meant(scene: Scene, checks: Sequence[Evidence]) -> list[Evidence]:
    """Those whose gradient is that of the forward with its stops' values held fixed, where all stops on the way are meant.

    Shown on a backend that can hold them; the same gradients of other backends are meant then, too. In notes["meant"]: why, the
    relative error, and that backend.
    """
    live = [e for e in checks if e.gradient.array is not None and e.gradient.array.any()]
    live = [e for e in live if e.notes["stops"] and all(n.meant for n in e.notes["stops"])]
    shown: dict[tuple[str, str], tuple[str, float, str]] = {}
    for group in by(live, lambda e: e.check.backend):
        backend = group[0].check.backend
        try:
            with scene.lab.session(scene.case, backend, scene.arrays) as session:
                misses = {pair(e): frozen_miss(scene, session, e) for e in group} if session.can("frozen") else {}
        except BackendError:
            continue
        for evidence in group:
            if (miss := misses.get(pair(evidence))) is not None:
                shown.setdefault(pair(evidence), (evidence.notes["stops"][0].meant, miss, backend))
    found = [e for e in live if pair(e) in shown]
    for evidence in found:
        evidence.notes["meant"] = shown[pair(evidence)]
    return found


def pair(evidence: Evidence) -> tuple[str, str]:
    return evidence.check.objective, evidence.check.parameter


def stops_before(scene: Scene, evidence: Evidence) -> list[Node]:
    """The stops on the way to a check's objective, as told by a backend that knows where they lead."""
    own, others = evidence.check.backend, [r.backend for r in scene.results]
    listed = [nodes_of(scene, name, ("stop",)) for name in dict.fromkeys([own, *others])]
    knowing = next((nodes for nodes in listed if nodes and nodes[0].reaches is not None), listed[0])
    return [n for n in knowing if n.reaches is None or evidence.check.objective in n.reaches]


def frozen_miss(scene: Scene, session: Session, evidence: Evidence) -> float | None:
    """Relative error of the gradient against differences with the stops' values held fixed; None if it does not agree."""
    name, scale, held = evidence.check.parameter, evidence.scale, evidence.comparison
    assert evidence.estimate is not None
    whole_slope = abs(float(evidence.estimate.value[evidence.objective_index]))
    analytic, bound = (held.analytic, held.bound) if held else (0.0, FROZEN * whole_slope)  # none at all counts as 0
    h, move = evidence.estimate.step, {"key": probe_key(scene.case.seed, evidence.salt, name)}
    values = session.frozen([[(name, t * scale, move)] for t in (h, -h, h / 2, -h / 2)])[:, evidence.objective_index]
    whole, half = (values[0] - values[1]) / (2 * h), (values[2] - values[3]) / h
    slope, size = (4 * half - whole) / 3, max(held.scale, abs(analytic)) if held else whole_slope
    miss = abs(slope - analytic)
    return float(miss / (size or 1.0)) if miss <= max(2 * bound, FROZEN * size) else None


def is_flat(evidence: Evidence) -> bool:
    """Whether the forward does not move at all for small steps: its derivative is zero, whatever the analytic gradient."""
    i = evidence.objective_index
    return evidence.estimate is not None and not evidence.estimate.moved[i]


def blocked_finding(scene: Scene, proven: dict[str, Agreement], checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    wholly = all(e.check.verdict is Verdict.DISCONNECTED for e in checks)
    loops = not wholly and any(n.recurrent for n in shown.notes["stops"])
    backend = shown.check.backend
    return finding(
        "GC205",
        checks,
        f"no gradient arrives because {stop_name(shown)} blocks every path"
        if wholly
        else f"part of the gradient is blocked by {stop_name(shown)}",
        numbers=numbers(shown),
        because=f"the objective moves with these inputs through {places(scene.case, shown)}, and no gradient comes back that way"
        + ("; what it stops comes from its own value a step before: the history is cut there" if loops else ""),
        proof=f"with what {stop_name(shown)} returns held fixed, on {backend}, differences of the forward agree with the "
        f"gradient that is there, to {shown.notes['held']:.0e}"
        if "held" in shown.notes
        else f"with {stop_name(shown)} as the identity, on {backend}, {words(proven, backend, checks)}",
        help=f"{way_through(shown)}, or take these inputs out of `wrt`, or expect GC205 if the block is meant",
        note="every backend that stops gradients shows the same"
        if len(unique(e.check.backend for e in checks)) > 1
        else "",
        whose="the step",
        blame=stop_blame(scene.case, shown),
    )


def way_through(evidence: Evidence) -> str:
    name = stop_name(evidence)
    return f"remove the {name}" if name == "stop_gradient" else f"replace {name} by what gradients pass through"


def surrogate_finding(scene: Scene, proven: dict[str, Agreement], checks: list[Evidence]) -> Finding:
    shown = worst(checks)
    backend = shown.check.backend
    if "meant" in shown.notes:
        return meant_finding(scene, shown, checks)
    return finding(
        "GC703",
        checks,
        "the gradient is a surrogate: the forward is stepwise, the gradient is not",
        Severity.ADVICE,
        numbers=numbers(shown),
        because=f"the objective does not move for small steps; {places(scene.case, shown)} lets another gradient through instead",
        proof=f"with {stop_name(shown)} as the identity, on {backend}, {words(proven, backend, checks)}: it is zero then",
        note="meant, as a straight-through estimator is: a difference of the forward cannot confirm it",
        whose="the step",
        blame=stop_blame(scene.case, shown),
    )


def words(proven: dict[str, Agreement], backend: str, checks: Sequence[Evidence]) -> str:
    return proven[backend].words_for([e for e in checks if e.check.backend == backend])


def meant_finding(scene: Scene, shown: Evidence, checks: list[Evidence]) -> Finding:
    why, miss, backend = shown.notes["meant"]
    observed, intended = WHY[why]
    return finding(
        "GC703",
        checks,
        f"the gradient is a surrogate: it leaves out what {stop_name(shown)} holds fixed",
        Severity.ADVICE,
        numbers=numbers(shown),
        because=f"the objective moves through {places(scene.case, shown)}, too; {observed}",
        proof=f"with what it returns held fixed, on {backend}, differences of the forward agree with the gradient, to {miss:.0e}",
        note=f"{intended}; differences of the forward itself cannot confirm it",
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
    if evidence.notes.get("stops"):
        return first_line(evidence.notes["stops"])
    return line_blame(case.step_file, stop_lines(case)[0], "stop_gradient")


def places(case: Case, evidence: Evidence) -> str:
    lines = (
        list(dict.fromkeys(n.line for n in evidence.notes["stops"]))
        if evidence.notes.get("stops")
        else stop_lines(case)
    )
    shown = ", ".join(map(str, lines))
    name = stop_name(evidence)
    return f"the {name}{'s' * (name[-1] != '`')} of lines {shown}" if len(lines) > 1 else f"the {name} of line {shown}"


def stop_name(evidence: Evidence) -> str:
    """What stops, as users call it; quoted where it is no word of this page."""
    ops = unique(n.op for n in evidence.notes.get("stops", ()))
    return "/".join(op if op == "stop_gradient" else f"`{op}`" for op in ops) or "stop_gradient"
