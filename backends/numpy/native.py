"""Native autograd models: a loss over arrays, nested in dicts and lists, written with autograd.numpy.

Runs inside a backend's interpreter: Python >= 3.9, numpy, autograd.
"""

import numpy as np
from gradcheck_worker.native import check_scalar, unique
from gradcheck_worker.problem import StepError

from . import adapter

LOSS = {"loss": True, "params": True, "args": False}


def prepare(problem):
    return Model(problem, problem.build((LOSS,)))


class Model(adapter.Unrolled):
    """One native model: `rollout` is all that differs from a portable case."""

    no_rule = Exception  # a loss in plain NumPy fails in as many ways as there are functions

    def __init__(self, problem, built):
        self.problem, self.xp = problem, None
        self.tree, self.args = built["params"], tuple(built.get("args", ()))
        self.losses = dict(built["loss"]) if isinstance(built["loss"], dict) else {"loss": built["loss"]}
        if not self.losses:
            raise StepError("'loss' is empty: it has to be a function, or a dict of functions")
        for name, loss in self.losses.items():
            if not callable(loss):
                raise StepError(f"'loss' is {type(loss).__name__}, not a function or a dict of functions ({name!r})")
        values = unique(leaves(self.tree))
        if problem.widen:
            values = {name: a.astype(np.float64) if a.dtype == np.float32 else a for name, a in values.items()}
        problem.declare(values, {name: list(values) for name in self.losses})
        problem.settle([np.asarray(value) for value in self.values(problem.arrays)[0]])

    def rollout(self, xp, arrays, check=False):
        """[(objective, magnitude)]: of a loss, its own size. arrays may be boxes of a trace."""
        params = filled(self.tree, arrays)
        pairs = []
        for objective in self.problem.objectives:
            value = self.losses[objective["name"]](params, *self.args)
            check_scalar(objective["name"], np.shape(value), getattr(value, "dtype", np.asarray(value).dtype))
            pairs.append((value, abs(value)))
        return pairs

    def redrawn(self, arrays, seeds):
        """None: what such a model draws, it draws by itself."""

    def draws(self):
        raise StepError("the draws of a native model are its own")


def leaves(tree, name=""):
    """(name, array) of every number, named as its owner would write it: encoder.W, layers[0].w; "params" for one alone."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{name}.{key}".lstrip("."))
    elif isinstance(tree, (list, tuple)):
        for position, value in enumerate(tree):
            yield from leaves(value, f"{name}[{position}]")
    elif is_array(tree):
        yield name or "params", np.asarray(tree)


def filled(tree, arrays, name=""):
    """The tree with these arrays in it, by their names; what is not there stays as it was."""
    if isinstance(tree, dict):
        return {key: filled(value, arrays, f"{name}.{key}".lstrip(".")) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        inside = [filled(value, arrays, f"{name}[{position}]") for position, value in enumerate(tree)]
        return type(tree)(*inside) if hasattr(tree, "_fields") else type(tree)(inside)
    return arrays.get(name or "params", tree)


def is_array(leaf):
    return isinstance(leaf, (bool, int, float, complex)) or hasattr(leaf, "dtype")
