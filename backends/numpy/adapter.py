"""The manual unroll: a NumPy forward, differentiated by HIPS autograd.

Runs inside a backend's interpreter: Python >= 3.9, numpy, autograd.
"""

import contextlib

import numpy as np

TINY = 1e-30  # complex step: nothing is subtracted, so the step only has to be far below every input


def start(settings):
    """No process-wide settings."""
    from importlib.metadata import version

    import autograd  # noqa: F401  -- a missing autograd must be told now, not at the first gradient

    return {"framework_version": version("autograd")}


def prepare(problem):
    return Model(problem)


def prepare_native(problem):
    from . import native

    return native.prepare(problem)


@contextlib.contextmanager
def in_process(built):
    """Around a check in the user's own process: (the model in native form, the default float). autograd has no state to keep."""
    yield built, "float64"


def prepare_second(problem):
    return SecondOrder(problem)


class Unrolled:
    """One case, unrolled: values and gradients, of the objectives or of what a subclass makes of them."""

    no_rule = NotImplementedError  # what is raised where an op has no reverse rule

    def __init__(self, problem):
        from . import xp

        self.problem = problem
        self.xp = xp.namespace(problem.dtype)
        self.rollout(self.xp, problem.arrays, check=True)

    def noise(self):
        """Draws of one evaluation, step by step, always from the same state: dicts name -> array."""
        generator = np.random.Generator(np.random.Philox(key=self.problem.draw_seed))
        draw = {"normal": generator.standard_normal, "uniform": generator.random}
        for _ in range(self.problem.steps):
            yield {
                n["name"]: np.asarray(draw[n["draw"]](tuple(n["shape"]))).astype(self.problem.dtype)
                for n in self.problem.in_step
            }

    def rollout(self, xp, arrays, check=False):
        """Run all steps; returns [(objective, magnitude)] in the case's order."""
        task = self.problem
        carries = {name: arrays[name] for name in task.carries}
        fixed = {name: arrays[name] for name in task.shared + task.parameters + task.constants}
        history = {}
        for t, draws in enumerate(self.noise()):
            sequences = {name: arrays[name][t] for name in task.sequences}
            carries, outputs = task.step(xp, dict(fixed, **sequences, **carries, **draws))
            if check and t == 0:
                for name, value in carries.items():
                    task.check_carry(name, np.shape(value), np.asarray(value).dtype)
            for name, value in {**carries, **outputs}.items():
                history.setdefault(name, []).append(value)
        return [task.reduce(xp, o, xp.stack(history[o["of"]]), np.shape(history[o["of"]][0])) for o in task.objectives]

    def values(self, arrays):
        with np.errstate(all="ignore"):
            pairs = self.rollout(self.xp, arrays)
        return [[v for v, _ in pairs], [m for _, m in pairs]]

    def gradients(self, arrays, cotangent=1.0):
        """{objective: {input: (status, array or reason)}}. One trace for all; input by input where an op has no reverse rule."""
        wrt = self.problem.wrt
        try:
            traced = dict.fromkeys(wrt, self.trace(arrays, wrt))
        except self.no_rule:
            traced = {name: self.trace_alone(arrays, name) for name in wrt}
        return {
            o["name"]: {name: gradient(traced[name], position, name, arrays[name], cotangent) for name in o["wrt"]}
            for position, o in enumerate(self.problem.objectives)
        }

    def trace(self, arrays, wrt):
        """(roots by name, the objectives' values or boxes) of one traced forward."""
        return run_traced(self.rollout, self.xp, arrays, wrt)

    def trace_alone(self, arrays, name):
        try:
            return self.trace(arrays, [name])
        except self.no_rule as error:
            return error

    def redrawn(self, arrays, seeds):
        """[[objectives] for each seed] under other draws of the step's noise; None if it draws none."""
        task, own = self.problem, self.problem.draw_seed
        if not task.in_step:
            return None
        rows = []
        try:
            for seed in seeds:
                task.draw_seed = (own + 1 + int(seed)) % 2**32
                rows.append([float(v) for v in self.values(arrays)[0]])
        finally:
            task.draw_seed = own
        return rows

    def draws(self):
        recorded = list(self.noise())
        return {n["name"]: np.stack([step[n["name"]] for step in recorded]) for n in self.problem.in_step}


class Model(Unrolled):
    """One case: its objectives, with complex-step derivatives."""

    def derivatives(self, arrays, tangents):
        """Complex-step derivative of every objective along the tangents: float64[objectives]."""
        from . import xp

        complex_xp = xp.complex_namespace("float64")  # the step of 1e-30 is no number in complex64
        wide = {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in arrays.items()}
        moved = {n: a + 1j * TINY * tangents[n] if n in tangents else a for n, a in wide.items()}
        with np.errstate(all="ignore"):
            return [np.imag(v) / TINY for v, _ in self.rollout(complex_xp, moved)]


class SecondOrder(Unrolled):
    """The same case with gradient . w for each objective: its gradients are Hessian-vector products, a trace within a trace."""

    no_rule = (
        NotImplementedError,
        TypeError,
    )  # TypeError: a reverse rule written in plain NumPy, which takes no traced value

    def rollout(self, xp, arrays, check=False):
        from autograd import numpy as traceable

        if check:
            super().rollout(xp, arrays, check)
        w = self.problem.contracting()
        roots, ends = run_traced(super().rollout, xp, arrays, self.problem.wrt)
        pairs = []
        for end, o in zip(ends, self.problem.objectives):
            cotangents = pull_back(end, 1.0)
            there = [name for name in o["wrt"] if roots[name] in cotangents]
            products = [cotangents[roots[name]] * w[name] for name in there]
            pairs.append((sum(map(traceable.sum, products)), sum(traceable.sum(abs(p)) for p in products)))
        return pairs


def run_traced(rollout, xp, arrays, wrt):
    """(roots by name, the objectives' values or boxes) of one traced rollout. arrays may be boxes of an outer trace."""
    from autograd.core import VJPNode
    from autograd.tracer import new_box, trace_stack

    with trace_stack.new_trace() as trace, np.errstate(all="ignore"):
        roots = {name: VJPNode.new_root() for name in wrt}
        boxed = dict(arrays, **{name: new_box(arrays[name], trace, root) for name, root in roots.items()})
        return roots, [value for value, _ in rollout(xp, boxed)]


def gradient(traced, position, name, array, cotangent):
    """One (status, array or reason). A root that the pull-back never reaches is disconnected, which zeros would hide."""
    if isinstance(traced, Exception):
        return "null", traced
    roots, ends = traced
    with np.errstate(all="ignore"):
        cotangents = pull_back(ends[position], cotangent)
    if roots[name] not in cotangents:
        return "disconnected", f"autograd found no path from {name}"
    return "ok", np.asarray(cotangents[roots[name]], dtype=array.dtype).reshape(array.shape)


def pull_back(end, cotangent):
    """Cotangents of every node under `end`, by node. {} if the end is a plain value, untouched by any traced input."""
    from autograd.core import add_outgrads
    from autograd.tracer import getval, isbox
    from autograd.util import toposort

    if not isbox(end):
        return {}
    sums = {end._node: (np.full_like(getval(end), cotangent), False)}
    for here in toposort(end._node):
        for parent, contribution in zip(here.parents, here.vjp(sums[here][0])):
            sums[parent] = add_outgrads(sums.get(parent), contribution)
    return {node: total for node, (total, _) in sums.items()}
