"""A case as an adapter sees it: names in order, arrays, and the user's step, called by name and checked.

Shared by all adapters; framework-free. An adapter turns a Problem and a rollout into a model (see backends/README.md).
"""

import hashlib
import importlib.util
import inspect
import os
import sys

import numpy as np

from . import directions, equations


class StepError(Exception):
    """The user's step file or step did something that cannot be used: told to the user as GC905."""


class Problem:
    """One case in one rollout ("scan" or "unroll").

    sequences, carries, shared, parameters, constants: input names in the case's order (`shared`: noise used by every step).
    in_step: noise to draw inside the step, as dicts name, shape, draw. differentiable: inputs a gradient may be asked for.
    objectives: dicts name, of, reduce, at, wrt. arrays: name -> array; sequences carry time in front. contraction: a point
    (see serve.values) that tells w, if the objectives are to be gradient . w; else None.
    """

    def __init__(self, description, arrays, rollout):
        self.name = description["name"]
        self.steps = description["steps"]
        self.seed = description["seed"]
        self.draw_seed = self.seed % 2**32  # what any framework's generator takes
        self.dtype = description["dtype"]
        self.objectives = description["objectives"]
        self.options = description["options"]
        self.rollout = rollout
        self.arrays = arrays
        inputs = description["inputs"]
        self.sequences = [i["name"] for i in inputs if i["kind"] == "sequence"]
        self.carries = [i["name"] for i in inputs if i["kind"] == "carry"]
        self.shared = [i["name"] for i in inputs if i["kind"] == "shared"]
        self.parameters = [i["name"] for i in inputs if i["kind"] == "parameter"]
        self.constants = [i["name"] for i in inputs if i["kind"] == "constant"]
        self.in_step = [i for i in inputs if i["kind"] == "in_step"]
        self.differentiable = self.parameters + self.sequences + self.carries + self.shared
        self.step_file = description["step_file"]
        self.time_probe = description["time_probe"]
        self.open_stops = description["open_stops"]
        self.contraction = description["contraction"]
        self._step = self.written_step(description)

    def written_step(self, description):
        """The step function: from its file, or from equations, whose file is the case's own."""
        if not description.get("equations"):
            return load_step(description["step_file"], description["function"], description.get("step_source"))
        rows = [equations.Equation(*row) for row in description["equations"]]
        inputs = list(self.arrays) + [i["name"] for i in self.in_step]
        try:
            return equations.step(rows, inputs, self.carries, description["outputs"], self.step_file)
        except equations.Fault as fault:  # the core reads them first, so that this is news
            raise StepError(f"{fault.line}:{fault.column}: {fault}") from fault

    @property
    def wrt(self):
        """Every input that some objective is differentiated by, in the case's order."""
        asked = {name for objective in self.objectives for name in objective["wrt"]}
        return [name for name in self.differentiable if name in asked]

    def contracting(self):
        """w by input, what gradients are multiplied with to be objectives of second order: arrays like the inputs."""
        flat = {name: np.zeros(self.arrays[name].size) for name in self.wrt}
        for name, coefficient, move in self.contraction:
            directions.add(flat[name], coefficient, move)
        like = {name: self.arrays[name] for name in flat}
        return {name: w.reshape(like[name].shape).astype(like[name].dtype) for name, w in flat.items()}

    def step(self, xp, inputs):
        """Call the user's step; returns (carries, outputs), both dicts in a fixed order."""
        if self.open_stops:
            xp = Opened(xp)
        if self.time_probe:  # move one parameter at this step alone: parameter + offset_t * direction
            name, offset, direction = self.time_probe
            inputs = dict(inputs)
            inputs[name] = inputs[name] + inputs.pop(offset) * inputs.pop(direction)
        result = self._step(xp, **inputs)
        if not isinstance(result, dict):
            raise StepError(f"the step returned {type(result).__name__}, not a dict of carries and outputs")
        missing = [name for name in self.carries if name not in result]
        if missing:
            raise StepError(f"the step did not return the carry {quoted(missing)}; it returned {quoted(result)}")
        wanted = [o["of"] for o in self.objectives if o["of"] not in result]
        if wanted:
            raise StepError(
                f"the step did not return {quoted(wanted)}, which an objective needs; it returned {quoted(result)}"
            )
        return {n: result[n] for n in self.carries}, {n: v for n, v in result.items() if n not in self.carries}

    def check_carry(self, name, shape, dtype):
        """A carry must leave the step as it enters it. shape: tuple of ints."""
        before = self.arrays[name]
        if tuple(shape) != before.shape:
            raise StepError(
                f"carry {name!r} enters the step with shape {before.shape} and leaves it with shape {tuple(shape)}"
            )
        if np.dtype(dtype) != before.dtype:
            raise StepError(f"carry {name!r} enters the step as {before.dtype} and leaves it as {np.dtype(dtype)}")

    def cotangent(self, objective, shape):
        """The fixed random cotangent of a `dot` objective: the same on every backend."""
        size = int(np.prod(shape, dtype=np.int64))
        name = objective.get("whole", objective["name"])
        digest = hashlib.blake2b(f"cotangent {self.seed} {name}".encode(), digest_size=16).digest()
        flat = directions.expand(int.from_bytes(digest, "big"), 0, size)
        return flat.reshape(shape).astype(self.dtype)

    def reduce(self, xp, objective, stacked, shape):
        """(objective, magnitude) from the stacked values [steps, ...] of what it is taken of. shape: that of one step's value.

        magnitude: the sum of the terms' sizes, the scale on which two backends' values may differ by rounding. A part of an
        objective has the terms at one index along one axis; none if there is no such index.
        """
        at = objective["at"]
        if at != "all":
            stacked = stacked[-1 if at == "last" else at]
        else:
            shape = (self.steps, *shape)
        if objective["reduce"] == "dot":
            own = getattr(xp, "asarray", np.asarray)  # a namespace may have fewer names
            stacked = stacked * own(self.cotangent(objective, shape))
        reduction = xp.mean if objective["reduce"] == "mean" else xp.sum
        if "part" in objective:
            axis, index = objective["part"]
            there = axis < len(shape) and index < shape[axis]
            taken = stacked[(*[slice(None)] * axis, index)] if there else 0.0 * stacked
            share = float(shape[axis] if there and objective["reduce"] == "mean" else 1)
            return reduction(taken) / share, reduction(xp.abs(taken)) / share
        return reduction(stacked), reduction(xp.abs(stacked))


class Opened:
    """A namespace whose stop_gradient is the identity: what the gradient would be if nothing were stopped."""

    def __init__(self, xp):
        self._xp = xp

    def __getattr__(self, name):
        return getattr(self._xp, name)

    @staticmethod
    def stop_gradient(x):
        return x


def quoted(names):
    return ", ".join(repr(str(name)) for name in names)


def load_step(path, name, text=None):
    """Load the step function from its file. The folder is on sys.path only meanwhile, and last: it cannot shadow a framework.

    text: run in place of what the file holds, if given.
    """
    folder = os.path.dirname(path)
    before = set(sys.modules)
    sys.path.append(folder)
    try:
        spec = importlib.util.spec_from_file_location("gradcheck_step_file", path)
        module = importlib.util.module_from_spec(spec)
        if text:
            exec(compile(text, path, "exec"), module.__dict__)
        else:
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
        for key in set(sys.modules) - before:  # helpers beside the step: the next case may have others of the same name
            if os.path.dirname(getattr(sys.modules[key], "__file__", None) or "") == folder:
                del sys.modules[key]
    step = getattr(module, name, None)
    if not callable(step):
        raise StepError(f"{os.path.basename(path)} has no function {name!r}")
    return step


def where_in(path, traceback):
    """(line, function) of the last frame of a traceback that lies in the step's folder, or None."""
    folder = os.path.dirname(os.path.abspath(path))
    frames = [
        f
        for f in inspect.getinnerframes(traceback, context=0)
        if os.path.dirname(os.path.abspath(f.filename)) == folder
    ]
    return (frames[-1].filename, frames[-1].lineno) if frames else None
