"""Native JAX models: a loss over a pytree of parameters, or a step for `lax.scan`.

Runs inside a backend's interpreter: Python >= 3.9, numpy, jax.
"""

import contextlib

import numpy as np
from gradcheck_worker.native import check_scalar, fixed_cotangent, step_count, unique
from gradcheck_worker.problem import StepError

from . import adapter, program
from .precision import precise, x64

LOSS = {"loss": True, "params": True, "args": False}
STEP = {"step": True, "carry": True, "params": True, "inputs": False, "length": False, "loss": False}


def prepare(problem):
    """The model; None, with the reason in problem.one_rollout, if it has no loop for this rollout."""
    import jax

    if problem.built is None:  # the process is ours; a `build` may have its own mind about it
        jax.config.update("jax_enable_x64", problem.dtype == "float64")
    with stops_open(problem):
        built = problem.build((STEP, LOSS))
    if "step" not in built and problem.rollout == "unroll":
        problem.one_rollout = "a `loss` runs its own loop, if it has one: it is checked as it is, on jax-scan"
        return None
    return Model(problem, built)


class Model(adapter.Model):
    """One native model. `objectives(moving)` is all that differs from a portable case."""

    def __init__(self, problem, built):
        import jax

        self.problem, self.built = problem, built
        self.x64 = bool(jax.config.jax_enable_x64 or problem.widen)  # `build` may have switched it
        with self.in_precision():
            self.set_up()

    def set_up(self):
        import jax

        problem, built = self.problem, self.built
        self.leaves, self.tree = jax.tree_util.tree_flatten_with_path(built["params"])
        arrays = unique((name_of(path), leaf) for path, leaf in self.leaves if is_array(leaf))
        self.args = tuple(built.get("args", ()))
        self.carry, self.inputs = self.taken(built.get("carry")), self.taken(built.get("inputs"))
        self.losses = named_losses(built.get("loss"))
        if "step" in built:
            problem.steps = self.length()
        elif not self.losses:
            raise StepError("'loss' is empty: it has to be a function, or a dict of functions")
        values = {name: self.wide(np.asarray(jax.numpy.asarray(leaf))) for name, leaf in arrays.items()}
        every = {name: list(values) for name in self.losses or self.default_losses(values)}
        problem.declare(values, every)
        self.moving = {name: problem.arrays[name] for name in problem.differentiable}
        with stops_open(problem):
            self.trace()

    def in_precision(self):
        return x64(self.x64)

    def wide(self, leaf):
        """A float32 array as float64, for the twin of a float32 model."""
        return leaf.astype(np.float64) if self.problem.widen and str(leaf.dtype) == "float32" else leaf

    def taken(self, tree):
        """A pytree of data, widened where the parameters are."""
        import jax

        if not self.problem.widen:
            return tree
        return jax.tree_util.tree_map(lambda leaf: self.wide(jax.numpy.asarray(leaf)) if is_array(leaf) else leaf, tree)

    def trace(self):
        """Trace the objectives: that shows their shapes, and whether they can be compiled at all."""
        import jax

        def as_written(function):
            return function

        try:
            found, _ = jax.eval_shape(self.listed, self.moving)
            compiled = jax.jit
        except jax.errors.JAXTypeError:  # the model's own Python looks at values: it runs as it is written
            found, _ = self.listed(self.moving)
            compiled = as_written
        self.problem.settle(found)
        self.forward = compiled(self.objectives)
        self.problem.shared_draws = self.traced is not None and program.shares_draws(self.traced)
        self.reverse = {o["name"]: compiled(self.gradient_of(k)) for k, o in enumerate(self.problem.objectives)}

    def params(self, moving):
        """The parameters as `build` nested them, with what moves in its place."""
        import jax

        leaves = [moving.get(name_of(path), leaf) if is_array(leaf) else leaf for path, leaf in self.leaves]
        return jax.tree_util.tree_unflatten(self.tree, leaves)

    def objectives(self, moving):
        """(objectives, magnitudes), both [objectives]."""
        import jax.numpy as jnp

        values, sizes = self.listed(moving)
        return jnp.stack(values), jnp.stack(sizes)

    def listed(self, moving):
        """Lists of scalars: the objectives and the sums of their terms' sizes (of a loss, its own size)."""
        import jax.numpy as jnp

        params = self.params(moving)
        if "step" in self.built:
            carry, outputs = self.rolled_out(params)
            if not self.losses:
                return self.dots(carry, outputs)
            arguments = (carry, outputs)
        else:
            arguments = (params, *self.args)
        values = []
        for name, loss in self.losses.items():
            value = jnp.asarray(loss(*arguments))
            check_scalar(name, value.shape, value.dtype)
            values.append(value)
        return values, [jnp.abs(value) for value in values]

    def rolled_out(self, params):
        """(final carry, stacked outputs), as jax.lax.scan returns them."""
        import jax

        step = self.built["step"]
        if self.problem.rollout == "scan":
            return jax.lax.scan(lambda c, x: step(params, c, x), self.carry, self.inputs, length=self.problem.steps)
        carry, rows = self.carry, []
        for t in range(self.problem.steps):
            row_in = jax.tree_util.tree_map(lambda leaf, t=t: leaf[t], self.inputs)
            carry, row = step(params, carry, row_in)
            rows.append(row)
        return carry, jax.tree_util.tree_map(lambda *leaves: jax.numpy.stack(leaves), *rows)

    def length(self):
        """The number of steps: of the inputs' leading axis, or given."""
        import jax

        return step_count(
            [np.shape(leaf)[0] for leaf in jax.tree_util.tree_leaves(self.inputs) if np.ndim(leaf)], self.built
        )

    def terms(self, carry, outputs):
        """What the objectives are taken of where no loss is given: every float output, or else every float of the last carry."""
        import jax

        for word, tree in (("outputs", outputs), ("carry", carry)):
            leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
            floats = [(name_of(path, word), leaf) for path, leaf in leaves if is_float(leaf)]
            if floats:
                return unique(floats)
        raise StepError("the step returns no float to take an objective of, and no `loss` is given")

    def default_losses(self, values):
        import jax

        def names():
            return self.terms(*self.rolled_out(self.params({n: jax.numpy.asarray(a) for n, a in values.items()})))

        return list(jax.eval_shape(names))

    def dots(self, carry, outputs):
        """Each term times a fixed random cotangent, summed."""
        import jax.numpy as jnp

        values, sizes = [], []
        for name, leaf in self.terms(carry, outputs).items():
            product = leaf * fixed_cotangent(self.problem.seed, name, leaf.shape).astype(leaf.dtype)
            values.append(jnp.sum(product))
            sizes.append(jnp.sum(jnp.abs(product)))
        return values, sizes

    def gradient_of(self, position):
        """A function of everything that moves and a cotangent: the gradient of one objective by its own parameters, times it."""
        import jax

        names = self.problem.objectives[position]["wrt"]

        def gradient(moving, cotangent):
            def objective(inputs):
                value = self.listed({**moving, **inputs})[0][position]
                return cotangent.astype(value.dtype) * value  # so that the reverse pass of the value starts from it

            return jax.grad(objective)({name: moving[name] for name in names})

        return gradient

    @precise
    def gradients(self, arrays, cotangent=1.0):
        """{objective: {parameter: (status, array or reason)}}, each objective by itself: a refusal of one is not one of all."""
        with stops_open(self.problem):
            return {name: self.taken_by(function, name, arrays, cotangent) for name, function in self.reverse.items()}

    def taken_by(self, function, name, arrays, cotangent):
        objective = next(o for o in self.problem.objectives if o["name"] == name)
        try:
            found = function({n: arrays[n] for n in self.moving}, np.asarray(cotangent, self.problem.dtype))
        except (ValueError, NotImplementedError, TypeError) as error:
            kind = "refused" if "Reverse-mode differentiation does not work" in str(error) else "null"
            return dict.fromkeys(objective["wrt"], (kind, error))
        return {n: ("ok", np.asarray(g)) for n, g in found.items()}


@contextlib.contextmanager
def stops_open(problem):
    """Where a diagnosis asks for it: jax.lax.stop_gradient as the identity, for the user's own calls of it."""
    import jax

    before = jax.lax.stop_gradient
    if problem.open_stops:
        jax.lax.stop_gradient = lambda x: x
    try:
        yield
    finally:
        jax.lax.stop_gradient = before


def named_losses(loss):
    """{name: callable} of a loss or a dict of them; {} if there is none."""
    losses = {} if loss is None else dict(loss) if isinstance(loss, dict) else {"loss": loss}
    for name, function in losses.items():
        if not callable(function):
            raise StepError(f"'loss' is {type(function).__name__}, not a function or a dict of functions ({name!r})")
    return {str(name): function for name, function in losses.items()}


def name_of(path, whole="params"):
    """A leaf's name as its owner would write it: encoder.W_mu, layers[0].w; `whole` for a tree that is one leaf."""
    name = ""
    for key in path:
        index = getattr(key, "idx", None)
        word = getattr(key, "key", getattr(key, "name", None))
        if index is None and type(key).__name__ == "FlattenedIndexKey":
            index, word = word, None
        name += f"[{index}]" if index is not None else f".{word}"
    return name.lstrip(".") or whole


def is_array(leaf):
    """Whether a leaf holds numbers; functions, names and random keys stay as they are."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        return isinstance(leaf, (bool, int, float, complex))
    return not str(dtype).startswith("key<")


def is_float(leaf):
    return str(getattr(leaf, "dtype", "")).startswith(("float32", "float64"))
