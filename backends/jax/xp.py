"""Runs inside the interpreter of the jax backend: Python >= 3.9, JAX with jax_enable_x64 set."""

import jax
import jax.numpy as jnp
import numpy as np
from gradcheck_worker import namespace as shared

UNARY = (
    "sqrt", "exp", "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "reciprocal",
)  # fmt: skip
UNARY_ANY_DTYPE = (
    "abs", "sign", "negative", "square", "floor", "ceil", "round", "isfinite", "isnan", "isinf", "logical_not",
)  # fmt: skip
BINARY = (
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "remainder", "pow", "atan2",
    "less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "logical_and", "logical_or",
)  # fmt: skip


def namespace(dtype):
    """Return the Namespace of jax.numpy; dtype: "float32" or "float64"."""
    make = _creation(dtype)
    asarray = make["asarray"]

    def floating(x):
        x = asarray(x)
        return x if shared.is_inexact(x.dtype) else x.astype(dtype)

    functions = {
        **shared.dtype_objects(np.dtype),
        **make,
        **_elementwise(asarray, floating, dtype),
        **_reductions(asarray, floating),
        **_shapes(asarray),
        "matmul": jnp.matmul,
        "tensordot": lambda x, y, axes=2: jnp.tensordot(x, y, axes=axes),
        "vecdot": lambda x, y, axis=-1: jnp.sum(asarray(x) * asarray(y), axis=axis),
        "matrix_transpose": lambda x: jnp.swapaxes(x, -1, -2),
        "sigmoid": lambda x: jax.nn.sigmoid(floating(x)),
        "softplus": lambda x: jax.nn.softplus(floating(x)),
        "relu": lambda x: jax.nn.relu(asarray(x)),
        "softmax": lambda x, axis=-1: jax.nn.softmax(floating(x), axis=axis),
        "logsumexp": lambda x, axis=None, keepdims=False: jax.scipy.special.logsumexp(
            floating(x), axis=axis, keepdims=keepdims
        ),
        "stop_gradient": jax.lax.stop_gradient,
    }
    return shared.build(functions, dtype)


def _creation(default):
    def asarray(value, dtype=None):
        if dtype is None and shared.is_python_scalar(value):
            dtype = shared.scalar_dtype(value, default)
        elif dtype is None and not hasattr(value, "dtype"):
            value = jnp.asarray(value)
            dtype = default if shared.is_inexact(value.dtype) else None
        return jnp.asarray(value, dtype=dtype)  # with a dtype the result is not weakly typed

    def full(shape, fill_value, dtype=None):
        return jnp.broadcast_to(asarray(fill_value, dtype), shape)

    def arange(start, stop=None, step=1, dtype=None):
        start, stop = (0, start) if stop is None else (start, stop)
        if dtype is None:
            dtype = default if any(isinstance(value, float) for value in (start, stop, step)) else "int64"
        return jnp.arange(start, stop, step, dtype=dtype)

    return {
        "asarray": asarray,
        "astype": lambda x, dtype: asarray(x).astype(dtype),
        "full": full,
        "full_like": lambda x, fill_value, dtype=None: full(x.shape, fill_value, dtype or x.dtype),
        "zeros": lambda shape, dtype=default: jnp.zeros(shape, dtype=dtype),
        "ones": lambda shape, dtype=default: jnp.ones(shape, dtype=dtype),
        "zeros_like": lambda x, dtype=None: jnp.zeros_like(x, dtype=dtype),
        "ones_like": lambda x, dtype=None: jnp.ones_like(x, dtype=dtype),
        "eye": lambda n_rows, n_cols=None, k=0, dtype=default: jnp.eye(n_rows, n_cols, k=k, dtype=dtype),
        "arange": arange,
    }


def _elementwise(asarray, floating, dtype):
    def matched(*operands):
        return shared.matched(operands, dtype, asarray)

    def unary(name, prepare):
        function = getattr(jnp, name)
        return lambda x: function(prepare(x))

    def binary(name):
        function = getattr(jnp, name)
        return lambda x, y: function(*matched(x, y))

    def clip(x, min=None, max=None):
        if min is not None:
            x = jnp.maximum(*matched(x, min))
        return x if max is None else jnp.minimum(*matched(x, max))

    return {
        **{name: unary(name, floating) for name in UNARY},
        **{name: unary(name, asarray) for name in UNARY_ANY_DTYPE},
        **{name: binary(name) for name in BINARY},
        "clip": clip,
        "where": lambda condition, x, y: jnp.where(condition, *matched(x, y)),
    }


def _reductions(asarray, floating):
    def reduction(name, prepare=asarray):
        function = getattr(jnp, name)
        return lambda x, axis=None, keepdims=False: function(prepare(x), axis=axis, keepdims=keepdims)

    def spread(name):
        function = getattr(jnp, name)
        return lambda x, axis=None, correction=0, keepdims=False: function(
            floating(x), axis=axis, ddof=correction, keepdims=keepdims
        )

    def cumulative_sum(x, axis=None):
        if axis is None and x.ndim != 1:
            raise ValueError("cumulative_sum needs an axis unless the array has one dimension")
        return jnp.cumsum(x, axis=axis)

    return {
        **{name: reduction(name) for name in ("sum", "prod", "max", "min", "any", "all", "argmax", "argmin")},
        "mean": reduction("mean", floating),
        "var": spread("var"),
        "std": spread("std"),
        "cumulative_sum": cumulative_sum,
    }


def _shapes(asarray):
    def joined(name):
        function = getattr(jnp, name)
        return lambda arrays, axis=0: function(shared.matched(arrays, None, asarray), axis=axis)

    def take(x, indices, axis=None):
        if axis is None and x.ndim != 1:
            raise ValueError("take needs an axis unless the array has one dimension")
        return jnp.take(x, indices, axis=axis)

    return {
        "reshape": lambda x, shape: jnp.reshape(x, shape),
        "expand_dims": lambda x, axis=0: jnp.expand_dims(x, axis),
        "squeeze": lambda x, axis: jnp.squeeze(x, axis=axis),
        "concat": joined("concatenate"),
        "stack": joined("stack"),
        "permute_dims": lambda x, axes: jnp.transpose(x, axes),
        "moveaxis": lambda x, source, destination: jnp.moveaxis(x, source, destination),
        "broadcast_to": lambda x, shape: jnp.broadcast_to(asarray(x), shape),
        "flip": lambda x, axis=None: jnp.flip(x, axis=axis),
        "roll": lambda x, shift, axis=None: jnp.roll(x, shift, axis=axis),
        "take": take,
        "tile": lambda x, repetitions: jnp.tile(x, repetitions),
        "repeat": lambda x, repeats, axis=None: jnp.repeat(x, repeats, axis=axis),
        "tril": lambda x, k=0: jnp.tril(x, k=k),
        "triu": lambda x, k=0: jnp.triu(x, k=k),
    }
