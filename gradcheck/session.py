"""One prepared model in a worker, as the numerics see it: values, complex-step derivatives and gradients at moved points."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcheck._backends._worker import wire
from gradcheck.errors import BackendError
from gradcheck.model import TIME_DIRECTION, TIME_OFFSET, Case, Gradient, Init, Input, Objective, Placement, Role
from gradcheck.workers import Worker

# {"key": k} a random direction, which further keys weight or restrict, or {"entry": i}. "inside": [low, high, reach] turns
# the entries round that would leave the input's domain. See directions.part.
Move = dict[str, Any]
Point = Sequence[tuple[str, float, Move]]  # (input, coefficient, move): base inputs plus coefficient * direction
Arrays = dict[str, NDArray[Any]]

_handles = itertools.count()


@dataclass(frozen=True, slots=True)
class Tensor:
    """What the numerics know of an input whose entries may stay in the worker. rms: root mean square, its unit of steps."""

    shape: tuple[int, ...]
    dtype: str
    rms: float

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith("float")


class OneRollout(BackendError):
    """A native model that has no loop of the tool's own, asked for its second rollout: there is nothing to run."""


def description(case: Case, framework: str) -> dict[str, Any]:
    """What a worker must know of a case, in builtins only. framework: selects the case's options."""

    def kind(placement: Placement | None, role: Role) -> str:
        if role is not Role.NOISE:
            return str(role)
        return {Placement.SEQUENCE: "sequence", Placement.NON_SEQUENCE: "shared", Placement.IN_STEP: "in_step"}[
            placement or Placement.SEQUENCE
        ]

    return {
        "name": case.name,
        "step_file": str(case.step_file),
        "step_source": case.step_source,
        "function": case.step_function,
        "equations": [[e.name, e.line, e.text] for e in case.equations],
        "outputs": list(case.outputs),
        "steps": case.steps,
        "seed": case.seed,
        "dtype": case.process_dtype,
        "options": dict(case.options.get(framework, {})),
        "open_stops": case.open_stops,
        "native": case.native,
        "wrt": list(case.wrt),
        "widen": False,
        "contraction": [[name, size, {"key": key}] for name, size, key in case.contraction] or None,
        "time_probe": [case.time_probe, TIME_OFFSET, TIME_DIRECTION] if case.time_probe else None,
        "inputs": [
            {"name": i.name, "kind": kind(i.placement, i.role), "shape": list(i.shape), "draw": i.init.kind}
            for i in case.inputs
        ],
        "objectives": [
            {"name": o.name, "of": o.of, "reduce": o.reduce, "at": o.at, "wrt": differentiable(case, o)}
            | ({"whole": o.whole, "part": list(o.part)} if o.part else {})
            for o in case.objectives
        ],
    }


def differentiable(case: Case, objective: Objective) -> list[str]:
    """The inputs of `wrt` that have a derivative at all: frameworks refuse the whole call for the sake of an integer one."""
    return [name for name in objective.wrt if case.input(name).dtype.startswith("float")]


class Session:
    """A case prepared in a worker under one rollout. Counts what it costs: a batch of n points is n forward evaluations."""

    def __init__(
        self, worker: Worker, case: Case, framework: str, rollout: str, arrays: Arrays, widen: bool = False
    ) -> None:
        self.worker, self.rollout = worker, rollout
        self.arrays = arrays
        self.handle = next(_handles)
        self.evaluations = 0
        told = {**description(case, framework), "widen": widen}
        self.facts = worker.call("prepare", handle=self.handle, case=told, arrays=wire.pack(arrays), rollout=rollout)
        if self.facts.get("one_rollout"):
            raise OneRollout(self.facts["one_rollout"], code="GC905", note="its other rollout is checked")
        self.case = completed(case, framework, self.facts) if case.native else case
        self._prepared_in = worker.starts

    @property
    def has_complex_step(self) -> bool:
        return bool(self.facts["complex_step"])

    @property
    def precision(self) -> str:
        """The lowest float type that the objectives are computed in, on their way from what is differentiated."""
        return str(self.facts.get("precision") or self.case.dtype)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The inputs by name: as the worker tells them, where it alone has their entries."""
        if self.case.native and "inputs" in self.facts:
            return {i["name"]: Tensor(tuple(i["shape"]), i["dtype"], i["rms"]) for i in self.facts["inputs"]}
        return tensors_of(self.arrays)

    def can(self, operation: str) -> bool:
        """Whether the backend offers an optional operation (see backends/README.md)."""
        return bool(self.facts.get(operation))

    def values(self, points: Sequence[Point]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(objectives, magnitudes), each float64[points, objectives]."""
        answer = self._call("values", points=[plain(point) for point in points])
        self.evaluations += len(points)
        both: NDArray[np.float64] = wire.unpack(answer["arrays"])["values"]
        if both.shape != (len(points), 2, len(self.case.objectives)):
            wanted = f"{len(points)} points, 2, {len(self.case.objectives)} objectives"
            raise BackendError(f"the backend's values have shape {both.shape}, not ({wanted})", code="GC905")
        return both[:, 0], both[:, 1]

    def derivatives(self, directions: Sequence[Point]) -> NDArray[np.float64]:
        """Complex-step derivatives along each direction: float64[directions, objectives]."""
        answer = self._call("derivatives", directions_asked=[plain(point) for point in directions])
        self.evaluations += len(directions)
        derivatives: NDArray[np.float64] = wire.unpack(answer["arrays"])["values"]
        return derivatives

    def tangents(self, directions: Sequence[Point]) -> tuple[NDArray[np.float64] | None, str]:
        """(forward-mode derivatives along each direction, float64[directions, objectives], or None, and then why).

        The words are the framework's own where it has no forward mode for this case, "" where the backend offers none at all.
        """
        answer = self._call("tangents", directions_asked=[plain(point) for point in directions])
        if "none" in answer:
            return None, answer["none"]
        derivatives: NDArray[np.float64] = wire.unpack(answer["arrays"])["values"]
        if derivatives.shape != (len(directions), len(self.case.objectives)):
            raise BackendError(f"the backend's tangents have shape {derivatives.shape}", code="GC905")
        return derivatives, ""

    def gradients(self, point: Point = (), cotangent: float = 1.0) -> dict[tuple[str, str], Gradient]:
        """Every gradient that the case asks for, by (objective, input), times the cotangent that reverse passes start from."""
        return self._gradients(self._call("gradients", point=plain(point), cotangent=cotangent))

    def _gradients(
        self, answer: dict[str, Any], objectives: Sequence[str] | None = None
    ) -> dict[tuple[str, str], Gradient]:
        """The gradients of an answer, which must hold those of all objectives, or of these."""
        arrays = wire.unpack(answer["arrays"])
        given = {
            (o, name): Gradient(status, arrays.get(f"{o}\n{name}"), why) for o, name, status, why in answer["answers"]
        }
        for objective in (o for o in self.case.objectives if objectives is None or o.name in objectives):
            for name in differentiable(self.case, objective):
                if (objective.name, name) not in given:
                    raise BackendError(
                        f"the backend gave neither the gradient of {objective.name} by {name} nor a reason",
                        code="GC905",
                    )
        return given

    def draws(self) -> Arrays:
        """The noise drawn in the step, as sequences."""
        drawn: Arrays = wire.unpack(self._call("draws")["arrays"])
        return drawn

    def nodes(self) -> list[dict[str, Any]]:
        """The ops of the rollout's graph, in order of execution (see backends/README.md)."""
        listed: list[dict[str, Any]] = self._call("nodes")["nodes"]
        return listed

    def births(self) -> list[dict[str, Any]]:
        """Ops and steps where what is finite becomes what is not."""
        found: list[dict[str, Any]] = self._call("births")["births"]
        return found

    def discrepancies(self) -> list[dict[str, Any]]:
        """What the reverse pass has not as the forward pass had it (see backends/README.md)."""
        found: list[dict[str, Any]] = self._call("discrepancies")["discrepancies"]
        return found

    def composed(self, **changes: Any) -> dict[tuple[str, str], Gradient]:
        """Every gradient (of `objectives`, if that is among the changes), composed op by op from the ops' own reverse rules."""
        return self._gradients(self._call("composed", **changes), changes.get("objectives"))

    def parts(self, inside: Sequence[int] = ()) -> list[dict[str, Any]]:
        """The ways by which cotangents go back, those of functions with rules of their own apart unless they are `inside`."""
        listed: list[dict[str, Any]] = self._call("parts", inside=list(inside))["parts"]
        return listed

    def frozen(self, points: Sequence[Point]) -> NDArray[np.float64]:
        """Objectives with what every stop_gradient returned at the unmoved inputs: float64[points, objectives]."""
        answer = self._call("frozen", points=[plain(point) for point in points])
        self.evaluations += len(points)
        values: NDArray[np.float64] = wire.unpack(answer["arrays"])["values"]
        return values

    def redrawn(self, points: Sequence[Point], seeds: Sequence[int]) -> NDArray[np.float64] | None:
        """Objectives under other random draws: float64[points, seeds, objectives]; None if the model draws nothing."""
        answer = self._call("redrawn", points=[plain(point) for point in points], seeds=list(seeds))
        if answer.get("none"):
            return None
        values: NDArray[np.float64] = wire.unpack(answer["arrays"])["values"]
        return values

    def redrawn_slopes(self, direction: Point, seeds: Sequence[int]) -> NDArray[np.float64] | None:
        """Gradients along a direction under other random draws: float64[seeds, objectives]; None if the model draws nothing."""
        answer = self._call("redrawn_slopes", direction=plain(direction), seeds=list(seeds))
        if answer.get("none"):
            return None
        slopes: NDArray[np.float64] = wire.unpack(answer["arrays"])["values"]
        return slopes

    def explain_draws(self) -> dict[str, Any]:
        """The draws of a scan's step, and which gradients read one, through which op (see backends/README.md)."""
        return self._call("explain_draws")

    def explain_loops(self) -> dict[str, Any]:
        """The loops that truncate their backward pass, or compute copies of what is differentiated (see backends/README.md)."""
        return self._call("explain_loops")

    def with_loops(self, **changes: Any) -> dict[tuple[str, str], Gradient]:
        """Every gradient, with the model's loops made again: whole, or with what they copied handed in."""
        return self._gradients(self._call("with_loops", **changes))

    def close(self) -> None:
        """Let the worker forget the model, if it is still the process that knows it."""
        if self.alive:
            self._call("drop")

    @property
    def alive(self) -> bool:
        """Whether the process that this was prepared in still runs."""
        return self.worker.alive and self.worker.starts == self._prepared_in

    def _call(self, operation: str, **job: Any) -> dict[str, Any]:
        return self.worker.call(operation, handle=self.handle, **job)


def unmoved(session: Session, name: str) -> NDArray[Any]:
    """An input's entries, flat; empty where the worker alone has them: such inputs have no bounds, for which they are needed."""
    return session.arrays.get(name, np.zeros(0)).reshape(-1)


class Focus(Session):
    """One op of another session's rollout, at the values it had at one step: a case of its own.

    only: (axis, indices): its results count at these alone, so that its derivative is what they contribute. ids: the op and step.
    """

    def __init__(
        self, parent: Session, node: int, step: int | None, only: tuple[int, Sequence[int]] | None = None
    ) -> None:
        self.worker, self.rollout = parent.worker, parent.rollout
        self.handle = next(_handles)
        self.evaluations = 0
        self.ids = node, step
        kept = {"only": [only[0], list(only[1])]} if only else {}
        self.facts = parent._call("focus", node=node, step=step, new_handle=self.handle, **kept)
        self._prepared_in = parent._prepared_in
        self.arrays = wire.unpack(self.facts["arrays"])
        dtype = self.facts["dtype"]
        inputs = tuple(
            Input(name, Role.PARAMETER, array.shape, str(array.dtype), Init("value"))
            for name, array in self.arrays.items()
        )
        objectives = tuple(Objective(name, name, "dot", "all", tuple(wrt)) for name, wrt in self.facts["objectives"])
        self.case = replace(
            parent.case,
            native="",
            steps=1,
            dtype=dtype,
            inputs=inputs,
            objectives=objectives,
            rtol=None,
            atol=0.0,
            options={},
        )

    @cached_property
    def results(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the op's results that can be restricted; {} where the backend cannot do that."""
        return {name: tuple(shape) for name, shape in self.facts.get("results", {}).items()}

    @cached_property
    def integers(self) -> dict[str, NDArray[Any]]:
        """The op's integer inputs, as far as they are told."""
        return wire.unpack(self.facts["integers"]) if "integers" in self.facts else {}

    def close(self) -> None:
        if self.alive:
            self._call("drop", collect=False)


class Supposed(Focus):
    """One op, its results restricted, with one gradient given in place of its rule's: is that what these results contribute?"""

    def __init__(
        self,
        parent: Session,
        of: Focus,
        pair: tuple[str, str],
        array: NDArray[Any],
        only: tuple[int, Sequence[int]] | None,
    ) -> None:
        super().__init__(parent, *of.ids, only)
        self._pair, self._array = pair, array
        objectives = tuple(replace(o, wrt=(pair[1],) if o.name == pair[0] else ()) for o in self.case.objectives)
        self.case = replace(self.case, objectives=objectives)

    def gradients(self, point: Point = (), cotangent: float = 1.0) -> dict[tuple[str, str], Gradient]:
        return {self._pair: Gradient("ok", (self._array * cotangent).astype(self._array.dtype))}


def plain(point: Point) -> list[list[Any]]:
    """A point in builtins only, as the channel takes it."""
    return [[name, float(coefficient), move] for name, coefficient, move in point]


def completed(case: Case, framework: str, facts: dict[str, Any]) -> Case:
    """A native case with what only its model could tell: inputs, objectives, steps, dtype, if its loop draws."""
    inputs = tuple(
        Input(i["name"], Role.PARAMETER, tuple(i["shape"]), i["dtype"], Init("value")) for i in facts["inputs"]
    )
    objectives = tuple(Objective(o["name"], o["name"], "sum", "all", tuple(o["wrt"])) for o in facts["objectives"])
    options = case.options
    if facts["options"]:
        options = {**options, framework: {**facts["options"], **options.get(framework, {})}}
    return replace(
        case,
        inputs=inputs,
        objectives=objectives,
        steps=facts["steps"],
        dtype=facts["dtype"],
        native_draws=facts["draws"],
        native_shared_draws=facts.get("shared_draws", False),
        options=options,
    )


def tensors_of(arrays: Arrays) -> dict[str, Tensor]:
    return {name: Tensor(a.shape, str(a.dtype), rms(a)) for name, a in arrays.items()}


def rms(array: NDArray[Any]) -> float:
    """Root mean square; 0 for an empty array and for one that is not of numbers with a square."""
    if not array.size or array.dtype.kind not in "fiu":
        return 0.0
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
