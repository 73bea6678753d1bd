"""A traced program, read and rewritten: with other random draws, and which of its draws every step of a loop shares.

Runs inside the interpreter of the jax backend: Python >= 3.9, numpy, JAX.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from .tape import CALLS, CUSTOM, DRAWS, apply

BY_KEY = ("random_bits", "random_gamma")  # draws that a key decides, their first operand
TOGETHER, AT_ONCE = 64, 256  # draws that are evaluated side by side, and in one call


class Redrawn:
    """What `function(inputs)`, a list of scalars, is under other draws. Every key has the seed folded in where it is used: what
    was drawn from one key still is. draws: whether a key decides anything.
    """

    def __init__(self, function, inputs):
        self.program = jax.make_jaxpr(function)(inputs)
        self.draws = any(count(self.program.jaxpr, name) for name in BY_KEY)
        self.values_of_some = jax.jit(self.values_at)
        self.slopes_of_some = jax.jit(self.slopes_at)

    def rows(self, inputs, seeds):
        """float[seeds, scalars]."""
        return self.in_turn(lambda some: self.values_of_some(inputs, some), seeds)

    def slopes(self, inputs, tangents, seeds):
        """float[seeds, scalars]: the reverse pass's gradients along the tangents."""
        return self.in_turn(lambda some: self.slopes_of_some(inputs, tangents, some), seeds)

    @staticmethod
    def in_turn(function, seeds):
        """So many seeds at a time, that one compilation serves all."""
        parts = [seeds[k : k + AT_ONCE] for k in range(0, len(seeds), AT_ONCE)]
        found = [function(jnp.asarray(some, jnp.uint32)) for some in parts]
        return np.concatenate([np.stack([np.asarray(column) for column in columns], axis=1) for columns in found])

    def once(self, inputs, seed):
        rule = functools.partial(from_other_key, seed=seed)
        return run(self.program.jaxpr, self.program.consts, jax.tree_util.tree_leaves(inputs), rule)

    def values_at(self, inputs, seeds):
        """One array over the seeds for each scalar."""
        return jax.lax.map(lambda seed: self.once(inputs, seed), seeds, batch_size=TOGETHER)

    def slopes_at(self, inputs, tangents, seeds):
        """The reverse pass's gradient of each scalar along the tangents: one array over the seeds for each."""

        def slopes(seed):
            moved = {name: inputs[name] for name in tangents}
            found, back = jax.vjp(lambda part: self.once({**inputs, **part}, seed), moved)
            units = [[jnp.asarray(float(k == j), v.dtype) for j, v in enumerate(found)] for k in range(len(found))]
            return [sum(jnp.vdot(back(unit)[0][name], tangents[name]) for name in tangents) for unit in units]

        return jax.lax.map(slopes, seeds, batch_size=TOGETHER)


def from_other_key(name, equation, values, seed):
    """A draw from its key with the seed folded in; None for other ops."""
    if name not in BY_KEY:
        return None
    keys = values[0].reshape(-1)
    folded = jax.vmap(lambda key: jax.random.fold_in(key, seed))(keys).reshape(values[0].shape)
    return apply(equation, [folded, *values[1:]])


def run(jaxpr, constants, inputs, rule):
    """Evaluate a jaxpr; rule(name, equation, values, ...) returns an op's results, or None where they stay what they are."""
    known = dict(zip(jaxpr.constvars, constants))
    known.update(zip(jaxpr.invars, inputs))

    def read(atom):
        return atom.val if hasattr(atom, "val") else known[atom]

    for equation in jaxpr.eqns:
        known.update(zip(equation.outvars, results(equation, [read(a) for a in equation.invars], rule)))
    return [read(a) for a in jaxpr.outvars]


def results(equation, values, rule):
    """What one equation gives, entered where it has a program inside."""
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        return run(*parts(params[CALLS[name]]), values, rule)
    if name in CUSTOM:
        inner = params.get("call_jaxpr") or params["fun_jaxpr"]
        drawn = any(count(parts(inner)[0], draw) for draw in BY_KEY)
        return run(*parts(inner), values, rule) if drawn else apply(equation, values)  # which keeps its own derivative
    if name == "scan":
        return scanned(params, values, rule)
    if name == "while":
        test, body = params["cond_jaxpr"], params["body_jaxpr"]
        first, last = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        return jax.lax.while_loop(
            lambda carry: run(*parts(test), [*values[:first], *carry], rule)[0],
            lambda carry: run(*parts(body), [*values[first:last], *carry], rule),
            list(values[last:]),
        )
    if name == "cond":
        branches = [lambda *given, inner=inner: run(*parts(inner), given, rule) for inner in params["branches"]]
        return jax.lax.switch(values[0], branches, *values[1:])
    replaced = rule(name, equation, values)
    return apply(equation, values) if replaced is None else replaced


def scanned(params, values, rule):
    first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
    count_carry = params["num_carry"]

    def body(carry, rows):
        found = run(*parts(params["jaxpr"]), [*values[:first], *carry, *rows], rule)
        return found[:count_carry], found[count_carry:]

    carry, stacked = jax.lax.scan(
        body, list(values[first:last]), list(values[last:]), length=params["length"], reverse=params["reverse"]
    )
    return [*carry, *stacked]


def parts(inner):
    """(jaxpr, constants) of a program inside an equation, closed or not."""
    return (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())


def inside(equation):
    """The programs inside an equation."""
    for value in equation.params.values():
        for inner in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield parts(inner)[0]


def count(jaxpr, name):
    """How many equations of that name a program holds, those inside others included."""
    return sum(
        (equation.primitive.name == name) + sum(count(inner, name) for inner in inside(equation))
        for equation in jaxpr.eqns
    )


def shares_draws(jaxpr, varying=None):
    """Whether it looks as if steps shared a draw: in a scan a draw that depends on nothing that changes, or the same call from
    the same key more than once, as in a Python loop.

    varying: for the body of a scan, whether each of its inputs changes from step to step; None outside.
    """
    changes = dict(zip(jaxpr.invars, varying)) if varying is not None else {}
    calls = set()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        given = [not hasattr(a, "val") and changes.get(a, False) for a in equation.invars]
        draws = name in DRAWS and name != "rng_uniform"
        if draws and varying is not None and not any(given):
            return True
        if draws or (name in CALLS and any(count(inner, d) for inner in inside(equation) for d in BY_KEY)):
            operands = [a.val if hasattr(a, "val") else id(a) for a in equation.invars]
            call = (str(equation.params.get("name", name)), str(operands), str([v.aval for v in equation.outvars]))
            if call in calls:
                return True
            calls.add(call)
        if name == "scan":
            body, constants = parts(equation.params["jaxpr"])[0], equation.params["num_consts"]
            repeats = equation.params["length"] > 1
            within = [k >= constants for k in range(len(equation.invars))] if repeats else given
            if shares_draws(body, within if repeats or varying is not None else None):
                return True
        else:
            for inner in inside(equation):
                same = len(inner.invars) == len(given)
                passed = given if same else [True] * len(inner.invars)
                if shares_draws(inner, passed if varying is not None else None):
                    return True
        if varying is not None:
            changes.update((v, any(given)) for v in equation.outvars)
    return False


def precision(jaxpr, moving=None):
    """The fewest mantissa bits, with its dtype, of the floats that derive from the inputs: (bits, name).

    moving: for a program inside, whether each of its inputs derives from them.
    """
    derived = {v for v, moves in zip(jaxpr.invars, moving or [True] * len(jaxpr.invars)) if moves}
    lowest = (64, "float64")
    for equation in jaxpr.eqns:
        given = [not hasattr(a, "val") and a in derived for a in equation.invars]
        if not any(given) or equation.primitive.name == "stop_gradient":
            continue
        for inner in inside(equation):
            same = len(inner.invars) == len(given)
            lowest = min(lowest, precision(inner, given if same else [True] * len(inner.invars)))
        for variable in equation.outvars:
            dtype = getattr(variable.aval, "dtype", None)
            if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
                derived.add(variable)
                lowest = min(lowest, (jnp.finfo(dtype).nmant, str(dtype)))
    return lowest


def gradient_draws_again(function, inputs, name):
    """How many more equations of that name the gradient's program holds than the function's own."""
    total = functools.partial(lambda f, moved: jnp.sum(jnp.stack(f(moved))), function)
    forward, reverse = jax.make_jaxpr(total)(inputs), jax.make_jaxpr(jax.grad(total))(inputs)
    return count(reverse.jaxpr, name) - count(forward.jaxpr, name)
