"""Looks into a rollout op by op: each op's own reverse rule against differences of that op alone, at its run-time values.

An op is examined as a whole case is, by the same Examination. What comes out: the ops whose rule is wrong, those that cannot be
judged, and how many were cleared. It is bounded by the time that a diagnosis has, and never raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gradcheck.diagnosis.counterfactual import remaining_error
from gradcheck.diagnosis.part import Lost, lost_part
from gradcheck.diagnosis.rule_fingerprints import instead
from gradcheck.diagnosis.scene import Scene, line_blame, number, relative
from gradcheck.errors import BackendError
from gradcheck.evidence import Evidence
from gradcheck.examine import Examination, float64_twin
from gradcheck.model import Blame, Gradient, Verdict
from gradcheck.session import Focus, Session

FAR = 16  # points that an op is looked at, to tell steps from a flat stretch
OPTIONAL = (  # of what a worker tells about a node
    "why", "active", "defined", "meant", "reaches", "recurrent", "parts", "stepwise", "draws", "shared", "stateful", "again",
    "sampled", "discrete",
)  # fmt: skip
NO_NODES = "this backend cannot be looked into op by op"


@dataclass(frozen=True)
class Node:
    """One op of the rollout's graph, where it is called. steps: how often it runs in one evaluation. defined: file:line or "".

    meant: why a stop is meant: "stepwise", "target" or "". reaches: the objectives that derive from a stop or a draw; None if
    that is not known. recurrent: a stop is given what derives from its own result a step before. parts: the ops that a call is
    made of. stepwise: what it returns moves in steps, unlike what it is given. shared: a draw was the same at all steps.
    stateful: no key decides a draw; again: how often the gradient's program makes it once more. sampled: the inputs that move a
    parameter of the distribution that a draw is from, with the parameters' names; discrete: whether what is drawn is known to be.
    """

    number: int
    op: str
    file: str
    line: int
    column: int
    steps: int
    kind: str  # op, custom, stop, draw, opaque, loop, call, integer
    why: str = ""
    active: bool = True
    defined: str = ""
    meant: str = ""
    reaches: Sequence[str] | None = None
    recurrent: bool = False
    parts: Sequence[int] = ()
    stepwise: bool = False
    draws: bool = False
    shared: bool = False
    stateful: bool = False
    again: int = 0
    sampled: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)
    discrete: bool = False

    @classmethod
    def of(cls, index: int, told: dict[str, Any]) -> Node:
        optional = {key: told[key] for key in OPTIONAL if key in told}
        return cls(
            index, told["op"], told["file"], told["line"], told["column"], told["steps"], told["kind"], **optional
        )

    @property
    def blame(self) -> Blame | None:
        """The line of its call; None where that is not known."""
        if not self.file:
            return None
        found = line_blame(self.file, self.line, self.op)
        text = found.text if found else "(this line is not on disk)"
        return Blame(relative(self.file), self.line, self.column or None, self.op, text)

    @property
    def place(self) -> str:
        return f"{Path(relative(self.file)).name}:{self.line}" if self.file else "a place that is not known"

    @property
    def definition(self) -> str:
        file, _, line = self.defined.rpartition(":")
        return f"{Path(relative(file)).name}:{line}" if file else ""


def is_cut(evidence: Evidence) -> bool:
    """Whether there is no path for the framework, and yet the op moves with the input."""
    return evidence.check.verdict is Verdict.DISCONNECTED and not evidence.check.dead


@dataclass
class Look:
    """One op at one step. worst: its worst check, against differences of it alone. flat: the op is stepwise, its rule is not.

    instead: what its wrong rule gives instead, as far as that was tested; or "". explained: that is about all that is wrong.
    inside: of a call, the op inside it that could not be judged, as a clause that says so.
    """

    node: Node
    step: int | None
    checks: list[Evidence]
    flat: bool = False
    instead: str = ""
    explained: bool = False
    inside: str = ""

    @property
    def worst(self) -> Evidence:
        order = (Verdict.MISMATCH, Verdict.NULL, Verdict.NONFINITE, Verdict.NONDETERMINISTIC, Verdict.INCONCLUSIVE)

        def rank(evidence: Evidence) -> int:
            verdict = Verdict.MISMATCH if is_cut(evidence) else evidence.check.verdict
            return order.index(verdict) if verdict in order else len(order)

        first = min(map(rank, self.checks))
        same = [e for e in self.checks if rank(e) == first]
        return max(same, key=lambda e: e.check.max_rel_error or 0.0)

    @property
    def verdict(self) -> Verdict:
        return Verdict.MISMATCH if is_cut(self.worst) else self.worst.check.verdict

    @property
    def cuts(self) -> bool:
        """Whether its rule gives no gradient for an input that moves it."""
        return is_cut(self.worst)

    @property
    def is_nonlinear(self) -> bool:
        """Whether its rule is not proportional to the cotangent."""
        return "cotangents" in self.worst.notes

    @property
    def hands_nothing(self) -> bool:
        """Whether its rule returns zeros where the op does move."""
        wrong = (e for e in self.checks if e.check.verdict is Verdict.MISMATCH)
        return any(e.gradient.array is not None and not e.gradient.array.any() for e in wrong)

    @property
    def at(self) -> str:
        return "" if self.step is None else f" at step {self.step}"

    @property
    def reason(self) -> str:
        """Why it cannot be judged."""
        return self.worst.check.reason or "its values or its derivative are not finite there"

    def words(self) -> str:
        """The numbers of its worst check."""
        evidence = self.worst
        check, comparison = evidence.check, evidence.comparison
        if self.is_nonlinear:
            index, one, cotangent, per_unit = evidence.notes["cotangents"]
            where = f"{check.parameter}[{', '.join(map(str, index))}]" if index else check.parameter
            return f"{number(one)} by {where}{self.at}, and {number(per_unit * cotangent)} from {cotangent:g} times the cotangent"
        if check.worst is not None:
            index = f"[{', '.join(map(str, check.worst.index))}]" if check.worst.index else ""
            bound = f" +- {check.error_bound:.1g}" if check.error_bound else ""
            reference = f"{number(check.worst.reference)}{bound}"
            return (
                f"{number(check.worst.analytic)} by {check.parameter}{index}{self.at}, where differences of it alone "
                f"give {reference}"
            )
        if comparison is not None:
            nearby = evidence.notes.get("no subgradient")
            too = f", and so do all {nearby} gradients close by: it is no subgradient" if nearby else ""
            return (
                f"{number(comparison.analytic)} {evidence.notes.get('along', 'along a random direction')} of "
                f"{check.parameter}{self.at}, where differences of it alone give {number(comparison.reference)} "
                f"+- {comparison.bound:.1g}{too}"
            )
        return f"{check.verdict} by {check.parameter}{self.at}"


@dataclass
class Inspection:
    """What looking at the ops of one backend's rollout showed.

    wrong: ops whose reverse rule does not fit; unsure: ops that cannot be judged at this point (a kink, say); cleared: numbers
    of ops that fit wherever they were looked at; unlooked: ops that could not be looked at, and why. why: "" unless it came to
    an end too early. composed: the gradients as composed from the ops' own rules; mended: the same with the derivative of
    their own forward in place of the wrong custom rules; {} where not available.
    lost: the part of such a rule whose contribution is all that is missing, if that was found.
    """

    backend: str = ""
    nodes: list[Node] = field(default_factory=list)
    wrong: list[Look] = field(default_factory=list)
    unsure: list[Look] = field(default_factory=list)
    cleared: set[int] = field(default_factory=set)
    unlooked: list[tuple[Node, str]] = field(default_factory=list)
    why: str = ""
    lost: Lost | None = None
    composed: dict[tuple[str, str], Gradient] = field(default_factory=dict)
    mended: dict[tuple[str, str], Gradient] = field(default_factory=dict)

    @property
    def examinable(self) -> list[Node]:
        return [n for n in self.nodes if n.active and n.kind in ("op", "custom")]

    @property
    def clears_all(self) -> bool:
        """Whether every op was looked at and none is wrong or in doubt."""
        return not (self.why or self.wrong or self.unsure or self.unlooked) and bool(self.cleared)

    def words(self) -> str:
        """How many ops were looked at, and what was not."""
        seen = len(self.cleared | {look.node.number for look in [*self.wrong, *self.unsure]})
        count = len(self.examinable)
        lines = [self.why] if self.why else []
        if count:
            lines.append(f"{seen} of {count} ops were looked at")
        if self.unlooked:
            node, why = self.unlooked[0]
            more = f" and {len(self.unlooked) - 1} more" if len(self.unlooked) > 1 else ""
            lines.append(f"{node.op} at {node.place}{more} cannot be looked at: {why}")
        return "; ".join(lines)


def inspected(scene: Scene, backend: str) -> Inspection:
    """Look at every op of a backend's rollout; once per case and backend."""
    found = scene.notes.setdefault(f"inspection of {backend}", Inspection(backend, why="not begun"))
    assert isinstance(found, Inspection)
    if found.why == "not begun":
        found.why = ""
        case, arrays = scene.case, scene.arrays
        widen = case.dtype == "float32" and not case.draws_in_step  # what is wrong is seen more clearly in float64
        if widen and not case.native:
            case, arrays = float64_twin(case, arrays)
        try:
            with scene.lab.session(case, backend, arrays, widen=widen and bool(case.native)) as session:
                if session.can("nodes"):
                    look_at_all(scene, session, found)
                else:
                    found.why = NO_NODES
        except BackendError as error:
            found.why = scene.lab.closed_words() if scene.lab.is_closed else error.message
    return found


def look_at_all(scene: Scene, session: Session, found: Inspection) -> None:
    """Every op at its last step, then at its first, then between, until something wrong is found; then, if the ops' own rules do
    not compose the right gradient either, at all other steps.
    """
    found.nodes = [Node.of(index, told) for index, told in enumerate(session.nodes())]
    found.unlooked = [(n, n.why or "it is opaque") for n in found.nodes if n.kind == "opaque" and n.active]
    count = (
        scene.case.steps if scene.case.steps > 1 else max((n.steps for n in found.nodes), default=1)
    )  # a loop of its own
    steps = spread(count)
    unsure: dict[int, Look] = {}
    look_at_steps(scene, session, found, steps, unsure)
    look_at_calls(scene, session, found)
    compose(scene, session, found)
    if not found.wrong and not composes(scene, found):
        rest = [step for step in range(count) if step not in steps]
        look_at_steps(scene, session, found, rest, unsure)
        if found.wrong:
            compose(scene, session, found)


def look_at_steps(
    scene: Scene, session: Session, found: Inspection, steps: Sequence[int], unsure: dict[int, Look]
) -> None:
    """Every op at each of these steps in turn, custom ones first, until something wrong is found."""
    order = sorted(found.examinable, key=lambda n: (n.kind != "custom", not n.file))
    for step in steps:
        for node in order:
            once = node.steps == 1 and (node.number in found.cleared or node.number in unsure)
            if once or any(node is unlooked for unlooked, _ in found.unlooked):
                continue
            look = look_at(scene, session, found, node, step)
            if look is None:
                continue
            if look.verdict is Verdict.MISMATCH:
                found.wrong.append(look)
            elif look.verdict is Verdict.PASS:
                found.cleared.add(node.number)
            else:
                unsure.setdefault(node.number, look)
        if found.wrong:
            break
    found.unsure = list(unsure.values())
    found.cleared -= {look.node.number for look in [*found.wrong, *found.unsure]}


def look_at_calls(scene: Scene, session: Session, found: Inspection) -> None:
    """Functions of a library as a whole, where an op inside them is in doubt: its kink need not be one of the function."""
    for node in [n for n in found.nodes if n.kind == "call"]:
        doubtful = [look for look in found.unsure if look.node.number in node.parts]
        for doubt in doubtful[:1] if not found.wrong else ():
            look = look_at(scene, session, found, node, doubt.step or 0)
            if look is not None and look.verdict is Verdict.MISMATCH:
                kink = "GC402" in doubt.worst.check.codes
                look.inside = f"a kink of {doubt.node.op} inside it is none of {node.op} itself" if kink else ""
                found.wrong.append(look)
            elif look is not None and look.verdict is Verdict.PASS:
                found.unsure = [k for k in found.unsure if k not in doubtful]
                found.cleared |= {k.node.number for k in doubtful}


def composes(scene: Scene, found: Inspection) -> bool:
    """Whether the ops' own rules compose the right gradients, as far as that is known: then it is not one of them."""
    wrong = wrong_checks(scene, found.backend)
    known = [e for e in wrong if (e.check.objective, e.check.parameter) in found.composed]
    return all(
        remaining_error(scene, e, found.composed[e.check.objective, e.check.parameter]) is not None for e in known
    )


def wrong_checks(scene: Scene, backend: str) -> list[Evidence]:
    return [e for e in scene.checks(Verdict.MISMATCH) if e.check.backend == backend]


def spread(steps: int) -> list[int]:
    """The steps to look at, in this order."""
    return list(dict.fromkeys([steps - 1, 0, steps // 2]))


def look_at(scene: Scene, session: Session, found: Inspection, node: Node, step: int) -> Look | None:
    """One op at one step; None (noted in `unlooked`) if that cannot be done."""
    if scene.lab.is_closed:
        raise BackendError(scene.lab.closed_words(), code="GC903")
    try:
        focus = Focus(session, node.number, step)
        try:
            evidence = Examination("the op alone", focus, None, None, 0.0).run()
            look = Look(node, step if node.steps > 1 else None, evidence.checks)
            if look.verdict is Verdict.MISMATCH:
                look.flat = is_stepwise(focus, look.worst)
                if not (look.flat or look.is_nonlinear):
                    look.instead, look.explained = instead(session, focus, scene.case, look.checks)
        finally:
            focus.close()
    except BackendError as error:
        if not session.alive:
            raise
        found.unlooked.append((node, error.message))
        return None
    null = next((e for e in look.checks if e.check.verdict is Verdict.NULL), None)
    if null is not None:
        said = null.check.reason
        found.unlooked.append(
            (node, said if said.startswith("its reverse rule") else f"its reverse rule raises {said}")
        )
        return None
    return look


def is_stepwise(focus: Focus, evidence: Evidence) -> bool:
    """Whether the op stands still near each of many points and yet takes other values at others."""
    if evidence.estimate is None or evidence.estimate.moved[evidence.objective_index]:
        return False
    name, scale = evidence.check.parameter, evidence.scale
    far = [[(name, scale * k / 3, {"key": k})] for k in range(1, FAR + 1)]
    near = [[*point, (name, 1e-9 * scale, {"key": 10 * FAR + k})] for k, point in enumerate(far)]
    values = focus.values([*far, *near])[0][:, evidence.objective_index]
    return bool((values[:FAR] == values[FAR:]).all() and np.ptp(values) > 0)


def compose(scene: Scene, session: Session, found: Inspection) -> None:
    """The gradients as the ops' own rules compose them, and with the wrong custom rules replaced; then what these leave out."""
    if not session.can("composed"):
        return
    try:
        custom = sorted({look.node.number for look in found.wrong if look.node.kind == "custom"})
        if custom:
            found.mended = session.composed(inside=custom)
            if not all(look.explained for look in found.wrong):
                checks = [e for r in scene.results if r.backend == found.backend for e in r.checks]
                found.lost = lost_part(session, checks, found.mended, custom)
        elif not found.wrong:
            found.composed = session.composed()
    except BackendError:
        if not session.alive:
            raise


def seen_op_by_op(scene: Scene, evidence: Evidence) -> tuple[str, Blame | None]:
    """What looking at the ops says about a wrong gradient whose op was not found: a clause, and the line in doubt, if any."""
    found = scene.notes.get(f"inspection of {evidence.check.backend}")
    if not isinstance(found, Inspection) or found.why == NO_NODES:
        return "", None
    if found.unsure and not found.wrong:
        look = found.unsure[0]
        return f"likely {look.node.op} at {look.node.place}{look.at}: {look.reason}", look.node.blame
    if not found.clears_all:
        return found.words(), None
    right = f"the own reverse rule of each of the {len(found.cleared)} ops is right"
    if composed_error(scene, evidence) is not None:
        loop = first_line(n for n in found.nodes if n.steps > 1)
        return f"{right}, and so is the gradient that they compose one by one; the backend returns another", loop
    if (evidence.check.objective, evidence.check.parameter) in found.composed:
        return f"{right} at the steps that were looked at, and yet they compose a wrong gradient", None
    return f"{right} at the steps that were looked at; likely their composition is not", None


def composed_error(scene: Scene, evidence: Evidence) -> float | None:
    """How far the gradient that the ops' own rules compose is off, where that is right and no op is in doubt; else None."""
    found = scene.notes.get(f"inspection of {evidence.check.backend}")
    if not isinstance(found, Inspection) or not found.clears_all:
        return None
    composed = found.composed.get((evidence.check.objective, evidence.check.parameter))
    return remaining_error(scene, evidence, composed) if composed is not None else None


def nodes_of(scene: Scene, backend: str, kinds: Sequence[str], active: bool = True) -> list[Node]:
    """The ops of these kinds, without looking at any; [] where the backend cannot tell. active: that gradients pass through."""
    key = f"nodes of {backend}"
    if key not in scene.notes:
        scene.notes[key] = []
        try:
            with scene.lab.session(scene.case, backend, scene.arrays) as session:
                if session.can("nodes"):
                    scene.notes[key] = [Node.of(index, told) for index, told in enumerate(session.nodes())]
        except BackendError:
            pass
    nodes = scene.notes[key]
    assert isinstance(nodes, list)
    return [n for n in nodes if n.kind in kinds and (n.active or not active)]


def called(node: Node) -> str:
    """The op and its places, to begin a sentence with."""
    defined = f" and defined at {node.definition}" if node.definition else ""
    return f"{node.op}, called at {node.place}{defined}" if node.file else node.op


def first_line(nodes: Iterable[Node]) -> Blame | None:
    return next((n.blame for n in nodes if n.file), None)
