"""Native PyTorch models: a loss of an nn.Module or of nested tensors, or a step that is looped over.

The model's own tensors are moved in place for an evaluation and put back after it, so that closures over them see the move.
Runs inside a backend's interpreter: Python >= 3.9, numpy, torch.
"""

import contextlib
import types

import numpy as np
import torch
from gradcheck_worker.native import FLOATS, check_scalar, fixed_cotangent, selected, step_count, unique
from gradcheck_worker.problem import StepError
from torch.autograd import forward_ad

from . import nodes, passes, scan, state, trees

LOSS = {"loss": True, "params": True, "args": False}
STEP = {"step": True, "carry": True, "params": True, "inputs": False, "length": False, "loss": False}


def prepare(problem):
    """The model; None, with the reason in problem.one_rollout, if it has no loop for this rollout."""
    with state.seeded(problem.seed, getattr(torch, problem.dtype)) as settings:
        built = problem.build((STEP, LOSS))
        default = settings.default()  # `build` may have switched it
    if "step" not in built and problem.rollout == "scan":
        problem.one_rollout = "a `loss` runs its own loop, if it has one: it is checked as it is, on torch-unroll"
        return None
    if problem.rollout == "unroll":
        return Model(problem, built, default)
    try:
        problem.one_rollout = scan.unavailable()
        return None if problem.one_rollout else Scanned(problem, built, default)
    except StepError:
        raise
    except (
        Exception
    ) as error:  # what the operator cannot run is checked unrolled, where an error of the step's own is told
        problem.one_rollout = f"torch's scan operator cannot run this step: {type(error).__name__}: {first_line(error)}"
        return None


def first_line(error):
    return next((line for line in str(error).splitlines() if line.strip()), "")


class Native:
    """One native model: its objectives, evaluated from the same random state, with its own tensors moved in place."""

    values_in_grad_mode = True  # as in training: a loss may differentiate on the way

    def __init__(self, problem, built, default):
        self.problem, self.built = problem, built
        self.default = torch.float64 if problem.widen else default
        self.params = trees.mapped(self.as_leaf, given(built["params"]))
        self.args = tuple(built.get("args", ()))
        self.carry, self.inputs = built.get("carry"), built.get("inputs")
        self.losses = named_losses(built.get("loss"))
        named = unique(trees.named_tensors(self.params))
        self.tensors = {name: checked(name, tensor) for name, tensor in first_of_each(named).items()}
        if "step" in built:
            problem.steps = self.length()
        data = [self.args, self.carry, self.inputs]
        self.state = state.State(self.tensors, trees.modules(self.params), data, problem.widen)
        if problem.widen:
            self.carry, self.inputs, self.args = (
                trees.mapped(wide, tree) for tree in (self.carry, self.inputs, self.args)
            )
        self.declare()

    def as_leaf(self, leaf):
        """NumPy arrays and Python floats as tensors; everything else as it is."""
        if isinstance(leaf, float):
            return torch.tensor(leaf, dtype=self.default)
        return torch.tensor(leaf) if isinstance(leaf, (np.ndarray, np.generic)) else leaf

    def declare(self):
        """Tell the problem what the model has, and run it once: that shows its objectives."""
        arrays = {name: as_array(tensor) for name, tensor in self.tensors.items() if self.is_asked(tensor)}
        if self.problem.widen:
            arrays = {name: wide(array) for name, array in arrays.items()}
        for name in selected(self.problem.wanted, arrays):
            if trees.dtype_name(self.tensors[name]) == "bfloat16":
                raise StepError(
                    f"parameter {name!r} is bfloat16: only float32 and float64 are checked; choose others by `wrt`"
                )
        chosen = [n for n in selected(self.problem.wanted, arrays) if arrays[n].dtype.kind == "f"]
        with self.evaluation(moving=chosen):
            losses = list(self.losses) or list(self.terms(*self.rolled_out()))
        self.problem.declare(arrays, {name: list(arrays) for name in losses})
        self.moving = {name: self.tensors[name] for name in self.problem.differentiable}
        with self.evaluation(moving=self.moving):
            found = [types.SimpleNamespace(shape=tuple(v.shape), dtype=trees.dtype_name(v)) for v in self.scalars()]
        self.problem.settle(found)

    def is_asked(self, tensor):
        """Whether a gradient by it can be asked for: where some tensors require grad, by default only those."""
        chosen = any(t.requires_grad for t in self.tensors.values())
        return bool(self.problem.wanted) or tensor.requires_grad or not chosen

    # -- the objectives ------------------------------------------------------------------------------------------------

    def evaluation(self, arrays=None, moving=()):
        """The model at these values, in the state that it was built in; moving: names that require grad."""
        arrays = {} if arrays is None else {n: a for n, a in arrays.items() if a is not self.problem.arrays[n]}
        return self.state.evaluation(self.problem.seed, self.default, arrays, moving)

    def objectives(self):
        """{name: a function without arguments that gives its scalar and the sum of its terms' sizes}; the loop is run once."""
        if "step" not in self.built:
            return {
                name: lambda loss=loss: of_loss(loss(self.params, *self.args)) for name, loss in self.losses.items()
            }
        carry, outputs = self.rolled_out()
        if self.losses:
            return {name: lambda loss=loss: of_loss(loss(carry, outputs)) for name, loss in self.losses.items()}
        terms = self.terms(carry, outputs)
        return {name: lambda name=name, leaf=leaf: self.dot(name, leaf) for name, leaf in terms.items()}

    def scalars(self):
        values = []
        for name, function in self.objectives().items():
            value, _ = function()
            check_scalar(name, value.shape, trees.dtype_name(value))
            values.append(value)
        return values

    def rolled_out(self):
        """(final carry, stacked outputs) of all steps."""
        step, length = self.built["step"], self.problem.steps
        carry, rows = self.carry, []
        for t in range(length):
            result = step(self.params, carry, trees.mapped(lambda leaf, t=t: leaf[t], self.inputs))
            if not (isinstance(result, tuple) and len(result) == 2):
                raise StepError(f"the step returned {type(result).__name__}, not (carry, output)")
            carry, row = result
            rows.append(row)
        return carry, trees.stacked(rows)

    def length(self):
        """The number of steps: of the inputs' leading axis, or given."""
        return step_count([len(leaf) for _, leaf in trees.leaves(self.inputs) if np.ndim(leaf)], self.built)

    def terms(self, carry, outputs):
        """What the objectives are taken of where no loss is given: every float output, or else every float of the last carry."""
        for word, tree in (("outputs", outputs), ("carry", carry)):
            named = [(trees.name_of(path, word), leaf) for path, leaf in trees.leaves(tree)]
            floats = [(name, leaf) for name, leaf in named if trees.dtype_name(leaf) in FLOATS]
            if floats:
                return unique(floats)
        raise StepError("the step returns no float to take an objective of, and no `loss` is given")

    def dot(self, name, leaf):
        """A term times a fixed random cotangent, summed, and the sum of the sizes."""
        product = leaf * torch.from_numpy(fixed_cotangent(self.problem.seed, name, tuple(leaf.shape))).to(leaf)
        return product.sum(), product.abs().sum()

    # -- what the core asks --------------------------------------------------------------------------------------------

    def values(self, arrays):
        rows = [self.evaluated(arrays, o["name"]) for o in self.problem.objectives] if self.alone else None
        if rows is None:
            with self.evaluation(arrays, self.moving), torch.set_grad_enabled(self.values_in_grad_mode):
                rows = [[float(part.detach()) for part in function()] for function in self.objectives().values()]
        return [[value for value, _ in rows], [size for _, size in rows]]

    @property
    def alone(self):
        """Whether each objective runs the model anew, and so from a state of its own."""
        return "step" not in self.built

    def evaluated(self, arrays, name):
        with self.evaluation(arrays, self.moving):
            return [float(part.detach()) for part in self.objectives()[name]()]

    def gradients(self, arrays, cotangent=1.0):
        """{objective: {parameter: (status, array or reason)}}, each from a forward pass of its own."""
        answers = {}
        for objective in self.problem.objectives:
            taken = self.taken_by(passes.pulled_back, objective, arrays, cotangent)
            if passes.needs_backward(taken):
                taken = self.taken_by(passes.accumulated, objective, arrays, cotangent)
            answers[objective["name"]] = taken
        return answers

    def taken_by(self, reverse, objective, arrays, cotangent):
        with self.evaluation(arrays, self.moving):
            value, _ = self.objectives()[objective["name"]]()
            return reverse(value, {name: self.tensors[name] for name in objective["wrt"]}, cotangent)

    def tangents(self, arrays, tangents):
        """Forward-mode derivatives of every objective along the tangents: a copy of a dual tensor leaves its tangent."""
        found = []
        for objective in self.problem.objectives:
            with forward_ad.dual_level(), self.evaluation(arrays):
                for name, tangent in tangents.items():
                    tensor = self.tensors[name]
                    along = torch.from_numpy(np.asarray(tangent)).reshape(tensor.shape).to(tensor)
                    with torch.no_grad():
                        tensor.copy_(forward_ad.make_dual(tensor.detach().clone(), along))
                found.append(passes.tangent_of(self.objectives()[objective["name"]]()[0]))
        return found


class Scanned(Native, nodes.InspectedUnrolled):
    """A step under torch's scan operator."""

    def __init__(self, problem, built, default):
        self.operator = scan.Operator()
        super().__init__(problem, built, default)

    def unrolled(self):
        return Model(self.problem, self.built, self.default)

    values_in_grad_mode = False  # the operator would trace the step's derivative at each of them

    def rolled_out(self):
        step = self.built["step"]
        return scan.scanned(self.operator, step, self.params, self.tensors, self.carry, self.inputs, self.problem.steps)


class Model(Native, nodes.Inspected):
    """A model as it is written: a loss, or a step in a Python loop."""

    @property
    def runs(self):
        names = [o["name"] for o in self.problem.objectives]
        return [[name] for name in names] if self.alone else [names]

    def settings(self):
        return state.seeded(self.problem.seed, self.default)

    def under_draws(self, names, arrays, seeds):
        """{objective: its values, one for each seed}, under other draws. What the model keeps is put back after all of them."""
        found = {name: [] for name in names}
        with self.evaluation(arrays, self.moving):
            for seed in seeds:
                with state.redrawing(seed):
                    functions = self.objectives()
                    for name in names:
                        found[name].append(float(functions[name]()[0].detach()))
        return found

    @contextlib.contextmanager
    def forward(self, names, *watching, arrays=None):
        """({objective: scalar}, {parameter: leaf}) at these values, or the model's own, under the contexts `watching`."""
        with self.evaluation(arrays, self.moving):
            with contextlib.ExitStack() as stack:
                for context in watching:
                    stack.enter_context(context)
                functions = self.objectives()
                values = {name: functions[name]()[0] for name in names}
            yield values, {name: self.tensors[name] for name in self.problem.wrt}


def of_loss(value):
    """(scalar, its own size) of what a loss returned."""
    value = torch.as_tensor(value)
    return value, value.detach().abs()


def named_losses(loss):
    """{name: callable} of a loss or a dict of them; {} if there is none."""
    losses = {} if loss is None else dict(loss) if isinstance(loss, dict) else {"loss": loss}
    for name, function in losses.items():
        if not callable(function):
            raise StepError(f"'loss' is {type(function).__name__}, not a function or a dict of functions ({name!r})")
    return {str(name): function for name, function in losses.items()}


def given(params):
    """The parameters as `build` gave them; a generator, such as model.parameters(), as a list."""
    return list(params) if isinstance(params, types.GeneratorType) else params


def first_of_each(named):
    """Without the further names of one tensor: tied parameters move together and share one gradient."""
    found, seen = {}, set()
    for name, tensor in named.items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def checked(name, tensor):
    """A parameter that can be moved in place."""
    if isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
        raise StepError(f"parameter {name!r} has no shape yet: call the lazy module once in `build`")
    if tensor.device.type == "meta":
        raise StepError(f"parameter {name!r} is on the device meta and has no values: build the model on a real device")
    if not tensor.is_leaf:
        raise StepError(
            f"parameter {name!r} is computed from others ({tensor.grad_fn.name()}): give these, or a "
            ".detach().requires_grad_() of it"
        )
    return tensor


def wide(leaf):
    """A float32 array as float64. Tensors are widened where they are, and only within an evaluation."""
    return leaf.astype(np.float64) if isinstance(leaf, np.ndarray) and leaf.dtype == np.float32 else leaf


def as_array(tensor):
    """A copy of its values; NumPy has no bfloat16, whose place is kept by float16."""
    tensor = tensor.detach().cpu()
    return (tensor.to(torch.float16) if tensor.dtype is torch.bfloat16 else tensor).numpy().copy()
