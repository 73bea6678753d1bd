"""The worker's loop: one job at a time, answered with a value or an error; nothing is ever printed to the channel."""

import contextlib
import gc
import importlib.util
import os
import platform
import sys
import traceback

import numpy as np

from . import directions, native, problem, wire

LONGEST = 1 << 16  # of an op's integer inputs that are told


def load_adapter(path, package="gradcheck_backend"):
    """Load a backend's adapter as a package of its own, so its modules find each other and nothing shadows a framework."""
    folder = os.path.dirname(path)
    spec = importlib.util.spec_from_file_location(package, path, submodule_search_locations=[folder])
    module = importlib.util.module_from_spec(spec)
    sys.modules[package] = module
    spec.loader.exec_module(module)
    return module


class Worker:
    """The models that are alive in this process, by handle."""

    def __init__(self, adapter):
        self.adapter = adapter
        self.models = {}

    def start(self, settings):
        """Import the framework under the settings that hold for the process."""
        facts = self.adapter.start(settings)
        return dict(facts, python=platform.python_version(), numpy=np.__version__)

    def prepare(self, handle, case, arrays, rollout):
        """Build the rollout of a case, or that of its gradient . w; everything else refers to it by handle."""
        if case["native"]:
            return self.prepare_native(handle, native.NativeProblem(case, rollout))
        task = problem.Problem(case, wire.unpack(arrays), rollout)
        prepare = self.adapter.prepare if task.contraction is None else self.prepare_second()
        self.models[handle] = model = prepare(task)
        return {"dtype": task.dtype, "precision": getattr(model, "precision", None), **offers(model)}

    def prepare_native(self, handle, task):
        """Build a native model. Its facts say what only it knows; without a model they say why it has no such rollout."""
        model = self.adapter.prepare_native(task)
        if model is not None:
            self.models[handle] = model
        return {"dtype": task.dtype, "precision": getattr(model, "precision", None), **offers(model), **task.facts()}

    def prepare_second(self):
        prepare = getattr(self.adapter, "prepare_second", None)
        if prepare is None:
            raise problem.StepError("this backend offers no second derivatives (its adapter has no prepare_second)")
        return prepare

    def values(self, handle, points):
        """Objectives and magnitudes at each point: float64[points, 2, objectives].

        A point is a list of (input, coefficient, move).
        """
        model = self.models[handle]
        results = [model.values(self.moved(model.problem, point)) for point in points]
        return {"arrays": wire.pack({"values": np.asarray(results, dtype=np.float64)})}

    def derivatives(self, handle, directions_asked):
        """Complex-step derivatives along each direction: float64[directions, objectives]."""
        model = self.models[handle]
        rows = [model.derivatives(model.problem.arrays, shaped(model.problem, point)) for point in directions_asked]
        return {"arrays": wire.pack({"values": np.asarray(rows, dtype=np.float64)})}

    def tangents(self, handle, directions_asked):
        """Forward-mode derivatives along each direction: float64[directions, objectives]; or why there are none."""
        model = self.models[handle]
        if not hasattr(model, "tangents"):
            return {"none": ""}
        try:
            rows = [model.tangents(model.problem.arrays, shaped(model.problem, point)) for point in directions_asked]
        except Exception as error:  # an op without a forward rule: each framework has exceptions of its own for it
            said = str(error).strip().split("\n")[0] or "an op has no forward rule"
            return {"none": escaped(f"{type(error).__name__}: {said}")}
        return {"arrays": wire.pack({"values": np.asarray(rows, dtype=np.float64)})}

    def gradients(self, handle, point=(), cotangent=1.0):
        """Every (objective, input) gradient at a point: status and reason, arrays apart. cotangent: what the reverse pass of
        each objective starts from; by the chain rule the arrays are that many times the gradients.
        """
        model = self.models[handle]
        return packed(model.gradients(self.moved(model.problem, point), cotangent))

    def draws(self, handle):
        """The noise that the step draws, as sequences [steps, ...]: recorded by a separate forward-only build."""
        return {"arrays": wire.pack(self.models[handle].draws())}

    def nodes(self, handle):
        """The ops of the rollout's graph, in order of execution: dicts op, file, line, column, steps, kind, ..."""
        return {"nodes": self.models[handle].nodes()}

    def focus(self, handle, node, step, new_handle, only=None):
        """One op at its values at one step, alive under a handle of its own. Facts: its arrays, objectives, dtype, finiteness.

        only: [axis, indices]; the cotangents of its results are 0 elsewhere along that axis.
        """
        self.models[new_handle] = model = self.models[handle].focus(node, step)
        task, facts = model.problem, {}
        if hasattr(model, "cotangents"):
            if only:
                model.cotangents = {name: directions.only(c, *only) for name, c in model.cotangents.items()}
            facts["results"] = {name: list(c.shape) for name, c in model.cotangents.items()}
            facts["integers"] = wire.pack(integers(model))
        return facts | {
            "arrays": wire.pack(task.arrays),
            "objectives": [[o["name"], list(o["wrt"])] for o in task.objectives],
            "dtype": str(task.dtype),
            "complex_step": hasattr(model, "derivatives"),
            "finite_in": bool(model.finite_in),
            "finite_out": bool(model.finite_out),
        }

    def births(self, handle):
        """Ops and steps where what is finite becomes what is not, forward and backward."""
        return {"births": self.models[handle].births()}

    def composed(self, handle, **changes):
        """Every (objective, input) gradient, composed from the ops' own reverse rules; as `gradients`."""
        return packed(self.models[handle].composed(**changes))

    def discrepancies(self, handle):
        """What the reverse pass has not as the forward pass had it: dicts kind, node, by, objective."""
        return {"discrepancies": self.models[handle].discrepancies()}

    def parts(self, handle, inside=()):
        """The ways by which cotangents go back: dicts op, file, line, column, input, inner, made (see backends/README.md)."""
        return {"parts": self.models[handle].parts(inside)}

    def frozen(self, handle, points):
        """Objectives at each point with what the stops returned at the case's own inputs: float64[points, objectives]."""
        model = self.models[handle]
        rows = [model.frozen(self.moved(model.problem, point)) for point in points]
        return {"arrays": wire.pack({"values": np.asarray(rows, dtype=np.float64)})}

    def redrawn(self, handle, points, seeds):
        """Objectives at each point under other draws: float64[points, seeds, objectives]; {"none": True} if nothing is drawn."""
        model = self.models[handle]
        rows = [model.redrawn(self.moved(model.problem, point), seeds) for point in points]
        if any(row is None for row in rows):
            return {"none": True}
        return {"arrays": wire.pack({"values": np.asarray(rows, dtype=np.float64)})}

    def redrawn_slopes(self, handle, direction, seeds):
        """Gradients along a direction under other draws: float64[seeds, objectives]; {"none": True} if nothing is drawn."""
        model = self.models[handle]
        rows = model.redrawn_slopes(shaped(model.problem, direction), seeds)
        return {"none": True} if rows is None else {"arrays": wire.pack({"values": np.asarray(rows, dtype=np.float64)})}

    def explain_draws(self, handle):
        """Which gradients of a scan read a draw that its step makes, and through which op: {"draws": [...], "reads": [...]}."""
        return self.models[handle].explain_draws()

    def explain_loops(self, handle):
        """Loops that truncate their backward pass or copy what is differentiated: {"truncated": [...], "copies": [...]}."""
        return self.models[handle].explain_loops()

    def with_loops(self, handle, **changes):
        """Every (objective, input) gradient, with the loops made again; as `gradients`."""
        return packed(self.models[handle].with_loops(**changes))

    def drop(self, handle, collect=True):
        """Forget a model. Graphs are full of cycles, which are collected here and only here (see run); one op is no graph."""
        self.models.pop(handle, None)
        if collect:
            gc.collect()
        return {}

    @staticmethod
    def moved(task, point):
        """The inputs with a point's moves added in float64, block by block; inputs that do not move are not copied."""
        arrays, moves = dict(task.arrays), {}
        for name, coefficient, move in point:
            moves.setdefault(name, []).append((coefficient, move))
        for name, added in moves.items():
            base = task.arrays[name].reshape(-1)
            flat = np.empty_like(base)
            for start, stop in directions.blocks(base.size):
                block = base[start:stop].astype(np.float64)
                for coefficient, move in added:
                    directions.add(block, coefficient, move, base, start)
                flat[start:stop] = block
            arrays[name] = flat.reshape(task.arrays[name].shape)
        return arrays


def shaped(task, point):
    """The direction of a point as tangents: input -> float64 array of its shape."""
    tangents = {}
    for name, coefficient, move in point:
        flat = tangents.setdefault(name, np.zeros(task.arrays[name].size))
        directions.add(flat, coefficient, move, task.arrays[name].reshape(-1))
    return {name: tangent.reshape(task.arrays[name].shape) for name, tangent in tangents.items()}


def integers(model):
    """The integers that an op is given or holds, by name: indices, most likely. Long ones are left out."""
    named = [(f"input {k}", value) for k, value in enumerate(model.given)]
    named += [(f"constant {k}", value) for k, value in enumerate(getattr(model, "held", ()))]
    kept = [(name, v) for name, v in named if str(getattr(v, "dtype", "")).startswith(("int", "uint"))]
    return {name: np.asarray(v, dtype=np.int64) for name, v in kept if 1 < v.size <= LONGEST}


OPTIONAL = (
    *("nodes", "births", "composed", "parts", "discrepancies", "frozen", "redrawn", "redrawn_slopes"),
    *("explain_draws", "explain_loops", "with_loops"),
)


def offers(model):
    """Which optional operations a model has."""
    return {"complex_step": hasattr(model, "derivatives")} | {name: hasattr(model, name) for name in OPTIONAL}


def packed(gradients):
    """{objective: {input: (status, array or reason)}} as it is sent: statuses and reasons, arrays apart."""
    answers, arrays = [], {}
    for objective, by_input in gradients.items():
        for name, (status, value) in by_input.items():
            answers.append([objective, name, status, "" if status == "ok" else str(value)])
            if status == "ok":
                arrays[f"{objective}\n{name}"] = value
    return {"answers": answers, "arrays": wire.pack(arrays)}


def escaped(text):
    """The text with what the channel cannot carry, such as half a surrogate pair, written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def failure(error, step_file):
    """What the core needs to tell a user about an exception."""
    place = getattr(error, "place", None)  # of a line that is in no traceback
    if place is None and step_file:
        place = problem.where_in(step_file, error.__traceback__)
    name = type(error).__name__
    try:
        text = escaped(str(error))
        shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception as second:  # the exception's own words fail
        text, shown = f"(its message raises {type(second).__name__})", ""
    if isinstance(error, SystemExit):
        text = "the step called sys.exit(%s)" % ("" if error.code is None else repr(error.code))
    elif not isinstance(error, problem.StepError):
        text = f"{name}: {text}" if text else name
    return {
        "message": text,
        "place": list(place) if place else None,
        "traceback": escaped(shown),
    }


def run(channel, adapter_path):
    """Serve jobs until the channel closes."""
    worker, step_file = None, None
    gc.disable()  # building graphs makes millions of objects that live on: looking through them again and again costs a third
    log = sys.stderr  # the step may put something else in its place
    for job in channel:
        operation = job.pop("op")
        try:
            if worker is None:
                worker = Worker(load_adapter(adapter_path))
            if operation == "prepare":
                step_file = job["case"]["step_file"]
            answer = {"ok": getattr(worker, operation)(**job)}
        except BaseException as error:  # SystemExit too: a step that exits must not take the worker along
            answer = {"error": failure(error, step_file)}
            log.write(answer["error"]["traceback"])
        for stream in (sys.stdout, sys.stderr, log):
            with contextlib.suppress(Exception):  # closed or replaced by the step: nothing of ours is in it
                stream.flush()
        channel.send(answer)
