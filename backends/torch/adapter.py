"""PyTorch: the step in a Python loop; reverse mode by `torch.autograd.grad`, forward mode by dual tensors.

Runs inside a backend's interpreter: Python >= 3.9, numpy, torch.
"""

import contextlib
import os

import numpy as np
import torch
from gradcheck_worker.problem import StepError
from torch.autograd import forward_ad

from . import nodes, passes, scan, state, xp


def start(settings):
    """torch was imported with this module. Its default float is set for each evaluation."""
    if (
        "OMP_NUM_THREADS" not in os.environ
    ):  # several workers run at once, and small ops that are shared out wait for a core
        torch.set_num_threads(1)
    return {"framework_version": str(torch.__version__)}


@contextlib.contextmanager
def in_process(built):
    """Around a check in the user's own process: (the model in native form, the process's default float).

    Every evaluation puts the model, the generators and torch's default float back as they were: see state.
    """
    yield built, str(torch.get_default_dtype()).rpartition(".")[2]


def prepare(problem):
    return Model(problem) if problem.rollout == "unroll" else Scanned(problem)


def prepare_native(problem):
    from . import native

    return native.prepare(problem)


def prepare_second(problem):
    if problem.rollout == "scan":
        raise StepError(
            "torch-scan offers no second derivatives (its prepare_second refuses): torch's scan operator takes minutes and "
            "gigabytes to differentiate its own reverse rule; torch-unroll has them"
        )
    return SecondOrder(problem)


class Unrolled:
    """One case, unrolled. Every evaluation seeds torch's own generator, from which both rollouts draw step by step."""

    def __init__(self, problem):
        self.problem = problem
        self.xp = xp.namespace(problem.dtype)
        with self.evaluation(grad=False):
            self.shapes = self.shapes_of_one_step()

    @contextlib.contextmanager
    def evaluation(self, grad=True):
        """Seeded draws and the case's default float, put back after."""
        default, random = torch.get_default_dtype(), torch.get_rng_state()
        torch.set_default_dtype(getattr(torch, self.problem.dtype))
        state.seed_torch(self.problem.draw_seed)
        try:
            with torch.set_grad_enabled(grad):
                yield
        finally:
            torch.set_rng_state(random)
            torch.set_default_dtype(default)

    def taken(self, arrays, moving=()):
        """The inputs as tensors of their own; those that move are leaves of the graph."""
        return {name: torch.tensor(arrays[name], requires_grad=name in moving) for name in self.problem.arrays}

    def noise(self):
        """The draws of one step."""
        draw = {"normal": torch.randn, "uniform": torch.rand}
        dtype = getattr(torch, self.problem.dtype)
        return {n["name"]: draw[n["draw"]](tuple(n["shape"]), dtype=dtype) for n in self.problem.in_step}

    def split(self, tensors):
        """(fixed inputs, initial carries, sequences)."""
        task = self.problem
        fixed = {name: tensors[name] for name in task.constants + task.parameters + task.shared}
        return fixed, {name: tensors[name] for name in task.carries}, {name: tensors[name] for name in task.sequences}

    def one_step(self, fixed, carries, sequences):
        """(carries, outputs) of one step, all of them tensors."""
        results = self.problem.step(self.xp, dict(fixed, **sequences, **carries, **self.noise()))
        return tuple({name: self.xp.asarray(value) for name, value in part.items()} for part in results)

    def shapes_of_one_step(self):
        """Shapes of what the step returns; carries are checked on the way."""
        fixed, carries, sequences = self.split(self.taken(self.problem.arrays))
        after, outputs = self.one_step(fixed, carries, {name: value[0] for name, value in sequences.items()})
        for name, value in after.items():
            self.problem.check_carry(name, value.shape, str(value.dtype).rpartition(".")[2])
        return {name: tuple(value.shape) for name, value in {**after, **outputs}.items()}

    def history(self, tensors):
        """What the objectives are taken of: name -> its values at all steps, stacked."""
        fixed, carries, sequences = self.split(tensors)
        rows = []
        for t in range(self.problem.steps):
            carries, outputs = self.one_step(fixed, carries, {name: value[t] for name, value in sequences.items()})
            rows.append({**carries, **outputs})
        return {name: torch.stack([row[name] for row in rows]) for name in {o["of"] for o in self.problem.objectives}}

    def listed(self, tensors):
        """Lists of scalars: the objectives and the sums of their terms' sizes."""
        task, history = self.problem, self.history(tensors)
        pairs = [task.reduce(self.xp, o, history[o["of"]], self.shapes[o["of"]]) for o in task.objectives]
        return [value for value, _ in pairs], [size for _, size in pairs]

    def values(self, arrays):
        with self.evaluation(grad=False):
            return [[float(v) for v in part] for part in self.listed(self.taken(arrays))]

    def gradients(self, arrays, cotangent=1.0):
        """{objective: {input: (status, array or reason)}}: one forward, a reverse pass for each objective from it alone."""
        with self.evaluation():
            tensors = self.taken(arrays, self.problem.wrt)
            values, _ = self.listed(tensors)
            return {
                o["name"]: passes.pulled_back(
                    value, {name: tensors[name] for name in o["wrt"]}, cotangent, retain_graph=True
                )
                for o, value in zip(self.problem.objectives, values)
            }

    def tangents(self, arrays, tangents):
        """Forward-mode derivatives of every objective along the tangents: float64[objectives]."""
        with self.evaluation(grad=False), forward_ad.dual_level():
            tensors = self.taken(arrays)
            for name, tangent in tangents.items():
                along = torch.tensor(tangent, dtype=tensors[name].dtype)
                tensors[name] = forward_ad.make_dual(tensors[name], along)
            return [passes.tangent_of(value) for value in self.listed(tensors)[0]]

    def draws(self):
        with self.evaluation(grad=False):
            rows = [self.noise() for _ in range(self.problem.steps)]
        return {n["name"]: np.stack([row[n["name"]].numpy() for row in rows]) for n in self.problem.in_step}


class Scanned(Unrolled, nodes.InspectedUnrolled):
    """One case under torch's scan operator."""

    def __init__(self, problem):
        if scan.unavailable():
            raise StepError(scan.unavailable())
        self.operator = scan.Operator()
        super().__init__(problem)

    def history(self, tensors):
        fixed, carries, sequences = self.split(tensors)

        def body(before, row, kept):
            after, outputs = self.one_step(kept, before, row)
            return after, {**after, **outputs}, None

        return self.operator(body, carries, sequences, fixed, self.problem.steps)[1]

    def unrolled(self):
        return Model(self.problem)


class Model(Unrolled, nodes.Inspected):
    """One case, unrolled: its objectives."""

    @property
    def runs(self):
        return [[o["name"] for o in self.problem.objectives]]

    def settings(self):
        return self.evaluation()

    def under_draws(self, names, arrays, seeds):
        """{objective: its values, one for each seed}, under other draws."""
        rows = []
        with self.evaluation(grad=False):
            tensors = self.taken(arrays)
            for seed in seeds:
                with state.redrawing(seed):
                    rows.append([float(value) for value in self.listed(tensors)[0]])
        return {o["name"]: [row[k] for row in rows] for k, o in enumerate(self.problem.objectives)}

    @contextlib.contextmanager
    def forward(self, names, *watching, arrays=None):
        """({objective: scalar}, {input: leaf}) at these inputs, or the case's own, evaluated under the contexts `watching`."""
        with self.evaluation():
            tensors = self.taken(arrays or self.problem.arrays, self.problem.wrt)
            with contextlib.ExitStack() as stack:
                for context in watching:
                    stack.enter_context(context)
                values, _ = self.listed(tensors)
            found = {o["name"]: value for o, value in zip(self.problem.objectives, values)}
            yield {name: found[name] for name in names}, {name: tensors[name] for name in self.problem.wrt}


class Contracted:
    """The same case with gradient . w for each objective: its gradients are Hessian-vector products, reverse over reverse."""

    def listed(self, tensors):
        w = {name: torch.tensor(array) for name, array in self.problem.contracting().items()}
        with torch.enable_grad():  # values are gradients, too
            for name in self.problem.wrt:
                tensors[name].requires_grad_()
            pairs = [
                self.product(v, o, tensors, w) for v, o in zip(super().listed(tensors)[0], self.problem.objectives)
            ]
        return [value for value, _ in pairs], [size for _, size in pairs]

    def product(self, value, objective, tensors, w):
        """(gradient . w of one objective, the sum of its terms' sizes)."""
        names = objective["wrt"] if value.requires_grad else []
        inputs = [tensors[name] for name in names]
        found = torch.autograd.grad(value, inputs, create_graph=True, allow_unused=True) if names else ()
        terms = [taken * w[name] for name, taken in zip(names, found) if taken is not None]
        nothing = torch.zeros((), dtype=value.dtype)
        return sum(map(torch.sum, terms), nothing), sum((torch.sum(torch.abs(t)) for t in terms), nothing)


class SecondOrder(Contracted, Unrolled):
    """Unrolled."""
