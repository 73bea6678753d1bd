"""JAX: `lax.scan`, or the same step in a Python loop; jitted, reverse mode by `jax.vjp`.

Runs inside a backend's interpreter: Python >= 3.9, numpy, jax.
"""

import contextlib

import numpy as np

from . import nodes
from .precision import precise, x64


def start(settings):
    """Import JAX. Its float64 switch holds for one model at a time: JAX keeps separate compiled functions for either."""
    import jax

    return {"framework_version": jax.__version__}


@contextlib.contextmanager
def in_process(built):
    """Around a check in the user's own process: (the model in native form, the process's default float).

    Nothing is left behind: the float64 switch is only ever turned within a scope, and JAX has no other state.
    """
    import jax

    yield built, "float64" if jax.config.jax_enable_x64 else "float32"


def prepare(problem):
    return Model(problem)


def prepare_native(problem):
    from . import native

    return native.prepare(problem)


def prepare_second(problem):
    return SecondOrder(problem)


class Model(nodes.Inspected):
    """One case under one rollout. Every evaluation splits the same key into one per step, in both rollouts."""

    def __init__(self, problem):
        import jax

        from . import xp

        self.problem = problem
        self.xp = xp.namespace(problem.dtype)
        self.moving = {name: problem.arrays[name] for name in problem.differentiable}
        with self.in_precision():
            self.constants = {name: jax.numpy.asarray(problem.arrays[name]) for name in problem.constants}
            self.shapes = self.shapes_of_one_step()
        self.forward = jax.jit(self.objectives)
        self.reverse = jax.jit(self.cotangents)

    def in_precision(self):
        """The scope in which this model's arrays are made and its functions run."""
        return x64(self.problem.dtype == "float64")

    def keys(self):
        import jax

        return jax.random.split(jax.random.key(self.problem.draw_seed), self.problem.steps)

    def noise(self, key):
        """The draws of one step."""
        import jax

        draw = {"normal": jax.random.normal, "uniform": jax.random.uniform}
        return {
            n["name"]: draw[n["draw"]](jax.random.fold_in(key, i), tuple(n["shape"]), self.problem.dtype)
            for i, n in enumerate(self.problem.in_step)
        }

    def one_step(self, fixed, carries, sequences, key):
        return self.problem.step(self.xp, dict(fixed, **sequences, **carries, **self.noise(key)))

    def split(self, moving):
        """(fixed inputs, initial carries, sequences)."""
        task = self.problem
        fixed = dict(self.constants, **{name: moving[name] for name in task.parameters + task.shared})
        return fixed, {name: moving[name] for name in task.carries}, {name: moving[name] for name in task.sequences}

    def shapes_of_one_step(self):
        """Shapes of what the step returns, without running it; carries are checked on the way."""
        import jax

        fixed, carries, sequences = self.split({n: jax.numpy.asarray(a) for n, a in self.moving.items()})
        first = {name: value[0] for name, value in sequences.items()}
        after, outputs = jax.eval_shape(self.one_step, fixed, carries, first, self.keys()[0])
        for name, value in after.items():
            same = value.dtype == carries[name].dtype  # in float32 JAX has no int64 and narrows such a carry
            self.problem.check_carry(name, value.shape, self.problem.arrays[name].dtype if same else value.dtype)
        return {name: value.shape for name, value in {**after, **outputs}.items()}

    def objectives(self, moving):
        """(objectives, magnitudes), both [objectives]."""
        import jax.numpy as jnp

        values, magnitudes = self.listed(moving)
        return jnp.stack(values), jnp.stack(magnitudes)

    def listed(self, moving):
        """The same as lists of scalars."""
        import jax
        import jax.numpy as jnp

        task = self.problem
        fixed, carries, sequences = self.split(moving)
        keys = self.keys()
        if task.rollout == "scan":

            def body(carried, x):
                after, outputs = self.one_step(fixed, carried, *x)
                return after, {**after, **outputs}

            _, history = jax.lax.scan(body, carries, (sequences, keys), length=task.steps)
        else:
            rows = []
            for t in range(task.steps):
                carries, outputs = self.one_step(fixed, carries, {n: v[t] for n, v in sequences.items()}, keys[t])
                rows.append({**carries, **outputs})
            history = {name: jnp.stack([row[name] for row in rows]) for name in rows[0]}
        pairs = [task.reduce(self.xp, o, history[o["of"]], self.shapes[o["of"]]) for o in task.objectives]
        return [v for v, _ in pairs], [m for _, m in pairs]

    def cotangents(self, moving, cotangent):
        """Gradients of each objective by its own inputs, times the cotangent. One compilation, but one pull-back per objective
        from that objective alone: a zero cotangent into another objective's part would turn an infinite derivative there into
        NaN here.
        """
        import jax

        def gradient(position, wrt):
            def objective(inputs):
                value = self.listed({**moving, **inputs})[0][position]  # of a stack, the others would get zeros
                return cotangent.astype(value.dtype) * value  # so that the reverse pass of the value starts from it

            return jax.grad(objective)({name: moving[name] for name in wrt})

        return {o["name"]: gradient(position, o["wrt"]) for position, o in enumerate(self.problem.objectives)}

    @precise
    def values(self, arrays):
        values, magnitudes = self.forward({name: arrays[name] for name in self.moving})
        return [np.asarray(values), np.asarray(magnitudes)]

    @precise
    def gradients(self, arrays, cotangent=1.0):
        """{objective: {input: (status, array or reason)}}. Zeros where there is no path: JAX never says disconnected."""
        try:
            results = self.reverse(
                {name: arrays[name] for name in self.moving}, np.asarray(cotangent, self.problem.dtype)
            )
        except (ValueError, NotImplementedError, TypeError) as error:
            kind = "refused" if "Reverse-mode differentiation does not work" in str(error) else "null"
            return {o["name"]: dict.fromkeys(o["wrt"], (kind, error)) for o in self.problem.objectives}
        return {o: {name: ("ok", np.asarray(g)) for name, g in by_input.items()} for o, by_input in results.items()}

    @precise
    def tangents(self, arrays, tangents):
        """Forward-mode derivatives of every objective along the tangents. Run as it is written: it is asked once or twice."""
        import jax

        moving = {name: arrays[name] for name in self.moving}
        along = {name: np.asarray(tangent, arrays[name].dtype) for name, tangent in tangents.items()}
        moved = {name: moving[name] for name in along}
        return np.asarray(jax.jvp(lambda inputs: self.objectives({**moving, **inputs})[0], (moved,), (along,))[1])

    @precise
    def draws(self):
        rows = [self.noise(key) for key in self.keys()]
        return {n["name"]: np.stack([np.asarray(row[n["name"]]) for row in rows]) for n in self.problem.in_step}


class SecondOrder(Model):
    """The same case with gradient . w for each objective: its gradients are Hessian-vector products, reverse over reverse."""

    def listed(self, moving):
        import jax
        import jax.numpy as jnp

        w, first = self.problem.contracting(), super().listed

        def products(position, wrt):
            taken = jax.grad(lambda inputs: first({**moving, **inputs})[0][position])({n: moving[n] for n in wrt})
            return [taken[name] * w[name] for name in wrt]

        rows = [products(position, o["wrt"]) for position, o in enumerate(self.problem.objectives)]
        return [sum(map(jnp.sum, row)) for row in rows], [sum(jnp.sum(jnp.abs(p)) for p in row) for row in rows]
