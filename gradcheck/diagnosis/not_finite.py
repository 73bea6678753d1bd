"""GC303 the forward is not finite; GC301 and GC302 gradients that are not finite though the forward is.

Going backwards op by op shows where a finite cotangent first becomes one that is not. If it was 0 only because a `where` took
the other side, that branch is the cause (GC301): what is put on that side arrives at the op. Else the op stands at a
singular point of its own (GC302). Where a backend cannot be looked into, the cause is not established, and the code is GC301.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from gradcheck.diagnosis.blame import Node
from gradcheck.diagnosis.counterfactual import closely, gradient_of, remaining_error
from gradcheck.diagnosis.scene import Claim, Scene, alike, by, finding, number, numbers, step_blame
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.model import Finding, Gradient, Verdict

TELLING = 1e-2  # differences whose bound is wider than this part of their value confirm nothing
OVERFLOW = 1e100  # a finite cotangent beyond this became infinite by its size


@dataclass(frozen=True)
class Birth:
    """Where something finite first became something that is not. told: the worker's words (see backends/README.md)."""

    node: Node
    told: dict[str, Any]
    select: Node | None = None

    @property
    def code(self) -> str:
        overflows = abs(self.told.get("cotangent", 0.0)) > OVERFLOW
        return "GC302" if "select" in self.told and self.select is None and not overflows else "GC301"

    def is_of(self, evidence: Evidence) -> bool:
        """Whether it spoils this check's objective; a worker that does not tell them apart means all."""
        return bool(self.told.get("objective", evidence.check.objective) == evidence.check.objective)

    @property
    def at(self) -> str:
        return "" if self.told.get("step") is None else f" at step {self.told['step']}"

    @property
    def key(self) -> tuple[str, str, int, str]:
        return self.code, self.node.file, self.node.line, self.node.op


@dataclass
class Births:
    """What going through one backend's rollout op by op showed. why: what prevented it, or ""."""

    forward: list[Birth] = field(default_factory=list)
    backward: list[Birth] = field(default_factory=list)
    mended: dict[tuple[str, str], Gradient] = field(default_factory=dict)
    why: str = ""


def not_finite(scene: Scene) -> Iterable[Claim]:
    checks = scene.checks(Verdict.NONFINITE)
    forward = [e for e in checks if "GC303" in e.check.codes]
    for group in by(forward, lambda e: e.check.objective):
        yield Claim("GC303", group, lambda part: forward_finding(scene, part))
    backward = [e for e in checks if "GC301" in e.check.codes]
    for group in by(backward, lambda e: e.check.backend):
        attribute(scene, group)
    for group in alike(backward, lambda e: e.notes["birth"].key if "birth" in e.notes else ()):
        if "birth" not in group[0].notes:
            yield Claim("GC301", group, partial(unknown_finding, scene))
        elif group[0].notes["birth"].select is not None:
            yield Claim("GC301", group, partial(branch_finding, scene))
        else:
            yield Claim(group[0].notes["birth"].code, group, partial(singular_finding, scene))


def births(scene: Scene, backend: str) -> Births:
    """Where values and cotangents of a backend's rollout stop being finite; looked for once per case and backend."""
    found = scene.notes.setdefault(f"births on {backend}", Births(why="not begun"))
    assert isinstance(found, Births)
    if found.why != "not begun":
        return found
    found.why = ""
    try:
        with scene.lab.session(scene.case, backend, scene.arrays) as session:
            if not (session.can("nodes") and session.can("births")):
                found.why = "this backend cannot be looked into op by op"
                return found
            nodes = [Node.of(index, told) for index, told in enumerate(session.nodes())]
            for told in session.births():
                select = told.get("select")
                birth = Birth(nodes[told["node"]], told, None if select is None else nodes[select])
                (found.forward if told["where"] == "forward" else found.backward).append(birth)
            if session.can("composed") and any(b.select for b in found.backward):
                found.mended = session.composed(mend=True)
    except BackendError as error:
        found.why = scene.lab.closed_words() if scene.lab.is_closed else error.message
    return found


def attribute(scene: Scene, group: list[Evidence]) -> None:
    """Note with each check of one backend where its gradient stops being finite. One that is finite with the unselected
    branches left out is theirs; what is left is for the singular points, if there are any.
    """
    found = births(scene, group[0].check.backend)
    for evidence in group:
        own = [b for b in found.backward if b.is_of(evidence)]
        branches, others = [b for b in own if b.select is not None], [b for b in own if b.select is None]
        without = gradient_of(found.mended, evidence).array if branches and found.mended else None
        explained = without is not None and bool(np.isfinite(without).all())
        if explained and (error := confirmed(scene, evidence, gradient_of(found.mended, evidence))) is not None:
            evidence.notes["mended"] = error
        if explained:
            evidence.notes["finite"] = True
        suspects = branches if explained or not others else others
        if suspects:
            evidence.notes["birth"] = suspects[0]


def confirmed(scene: Scene, evidence: Evidence, gradient: Gradient) -> float | None:
    """Relative error of a mended gradient, if it is right and the differences can tell: there, they often cannot."""
    error, held = remaining_error(scene, evidence, gradient), evidence.estimate
    if error is None or held is None:
        return None
    i = evidence.objective_index
    return error if max(error, held.bound[i] / max(abs(held.value[i]), 1e-300)) <= TELLING else None


def forward_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    first = checks[0]
    result = next(r for r in scene.results if r.backend == first.check.backend)
    value = "not finite" if result.values is None else str(float(result.values[first.objective_index]))
    born = [b for b in births(scene, first.check.backend).forward if b.is_of(first)]
    because = "the forward pass gives a value that is not finite, so there is nothing to differentiate"
    if born:
        argument = born[0].told.get("input")
        given = f" of {number(argument)}" if argument is not None else ""
        because = (
            f"{born[0].node.op} at {born[0].node.place} makes {born[0].told.get('result', 'it')}{given}{born[0].at}; "
            "everything before it is finite"
        )
    return finding(
        "GC303",
        checks,
        f"the objective itself is {value}",
        numbers=(("forward", value),),
        because=because,
        proof="the forward pass was run op by op" if born else "",
        help="make the forward pass finite first: look for overflow, a logarithm of 0 or a division by 0 in the step",
        whose="the step or its data",
        blame=(born[0].node.blame if born else None) or step_blame(scene.case),
    )


def branch_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    first = checks[0]
    birth: Birth = first.notes["birth"]
    select = birth.select
    assert select is not None
    proof = f"what is put on the side that {select.op} does not take arrives at {birth.node.op}: the 0 is its doing"
    errors = [e.notes["mended"] for e in checks if "mended" in e.notes]
    if not errors and all("finite" in e.notes for e in checks):
        proof += (
            "; with what that side contributes left out, it is finite (differences cannot tell here if it is right)"
        )
    if errors:
        agree = f"all {len(errors)} of these gradients agree" if len(errors) > 1 else "the gradient agrees"
        proof += f"; with what that side contributes left out, {agree} with the differences, {closely(max(errors))}"
    return finding(
        "GC301",
        checks,
        f"the branch that {select.op} does not take makes the gradient not finite",
        numbers=(*numbers(first), *spoilt(first), *born_line(birth)),
        because=f"{select.op} at {select.place} takes its other side there and hands the cotangent 0 to the side of "
        f"{birth.node.op} at {birth.node.place}; 0 times its infinite derivative is {birth.told['result']}",
        proof=proof,
        help=f"make the argument of {birth.node.op} safe before it, with a `where` of its own, and select again after it",
        whose="the step",
        blame=birth.node.blame or step_blame(scene.case),
    )


def singular_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    first = checks[0]
    birth: Birth = first.notes["birth"]
    if birth.code == "GC301":
        return unknown_finding(scene, checks)
    return finding(
        "GC302",
        checks,
        f"the gradient is taken at a singular point of {birth.node.op}",
        numbers=(*numbers(first), *spoilt(first), *born_line(birth)),
        because=f"{birth.node.op} at {birth.node.place} has no finite derivative at the value that it gets there, "
        f"{number(birth.told['input'])}, and no `where` keeps that away",
        proof=f"backwards op by op, every cotangent is finite up to this op, whose own rule makes {birth.told['result']} of it",
        help=f"keep the argument of {birth.node.op} away from that point, by an amount that does not matter to the model",
        whose="the step, or the point at which it is checked",
        blame=birth.node.blame or step_blame(scene.case),
    )


def unknown_finding(scene: Scene, checks: list[Evidence]) -> Finding:
    first = checks[0]
    found = births(scene, first.check.backend)
    birth: Birth | None = first.notes.get("birth")
    forward = [b for b in found.forward if b.is_of(first)]
    if birth is None and forward:
        birth = forward[0]
        because = (
            f"run op by op, {birth.node.op} at {birth.node.place} makes {birth.told['result']} of "
            f"{number(birth.told['input'])}{birth.at}; the backend rewrites the forward pass, which is finite then, and not the "
            "backward pass"
        )
    elif birth is None:
        reason = f" ({found.why})" if found.why else ""
        because = (
            f"the cause is not established{reason}; "
            "likely a branch that `where` did not select, or a singular point such as sqrt(0)"
        )
    elif abs(birth.told.get("cotangent", 0.0)) > OVERFLOW:
        large = number(birth.told["cotangent"])
        because = f"the cotangent {large} overflows in {birth.node.op} at {birth.node.place}{birth.at}"
    else:
        because = (
            f"the cotangent is finite up to {birth.node.op} at {birth.node.place}{birth.at}; "
            "likely a branch that `where` did not select, or a singular point of this op"
        )
    return finding(
        "GC301",
        checks,
        "the gradient is not finite though the forward pass is",
        numbers=(*numbers(first), *spoilt(first)),
        because=because,
        help="look in the step for where, sqrt, log, a division or a norm, and keep its argument away from the singular point",
        whose="the step, unless another framework's gradient is finite at the same point",
        blame=(birth.node.blame if birth else None) or step_blame(scene.case),
    )


def spoilt(evidence: Evidence) -> tuple[tuple[str, str], ...]:
    """How many entries are not finite."""
    array = evidence.gradient.array
    bad = int((~np.isfinite(array)).sum()) if array is not None else 0
    return (("not finite", f"{bad} of {int(np.prod(evidence.check.shape))} entries of {evidence.check.parameter}"),)


def born_line(birth: Birth) -> tuple[tuple[str, str], ...]:
    """The numbers at the op where it begins."""
    told = birth.told
    arrives, leaves = number(told["cotangent"]), told["result"]
    return (
        ("born", f"{birth.node.op}{birth.at}: input {number(told['input'])}, cotangent in {arrives}, out {leaves}"),
    )
