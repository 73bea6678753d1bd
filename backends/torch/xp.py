"""Runs inside the interpreter of the torch backend: Python >= 3.9, torch."""

import numpy as np
import torch
from gradcheck_worker import namespace as shared

UNARY = (
    "sqrt", "exp", "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "reciprocal", "sigmoid",
)  # fmt: skip
UNARY_ANY_DTYPE = (
    "abs", "sign", "negative", "square", "floor", "ceil", "round", "isfinite", "isnan", "isinf", "logical_not",
)  # fmt: skip
BINARY = {
    "add": "add", "subtract": "subtract", "multiply": "multiply", "divide": "divide", "maximum": "maximum",
    "minimum": "minimum", "remainder": "remainder", "pow": "pow", "atan2": "atan2", "less": "less",
    "less_equal": "less_equal", "greater": "greater", "greater_equal": "greater_equal", "equal": "eq",
    "not_equal": "not_equal", "logical_and": "logical_and", "logical_or": "logical_or",
}  # fmt: skip


def dtype_of(name):
    """torch's dtype object of a name such as "float32"; what is a dtype already stays as it is."""
    return name if name is None or isinstance(name, torch.dtype) else getattr(torch, str(np.dtype(name)))


def namespace(dtype):
    """Return the Namespace of torch; dtype: "float32" or "float64"."""
    make = _creation(dtype)
    asarray = make["asarray"]

    def floating(x):
        x = asarray(x)
        return x if x.is_floating_point() else x.to(dtype_of(dtype))

    def softplus(x):
        x = floating(x)
        return torch.logaddexp(x, torch.zeros_like(x))  # torch's own is cut to x above 20

    functions = {
        **shared.dtype_objects(dtype_of),
        **make,
        **_elementwise(asarray, floating, dtype),
        **_reductions(asarray, floating),
        **_linear_algebra(asarray),
        **_shapes(asarray),
        "softplus": softplus,
        "relu": lambda x: torch.relu(asarray(x)),
        "softmax": lambda x, axis=-1: torch.softmax(floating(x), dim=axis),
        "logsumexp": lambda x, axis=None, keepdims=False: torch.logsumexp(
            floating(x), dim=shared.normalised_axes(axis, x.ndim), keepdim=keepdims
        ),
        "stop_gradient": lambda x: asarray(x).detach(),
    }
    return shared.build(functions, dtype)


def _creation(default):
    def asarray(value, dtype=None):
        dtype = dtype_of(dtype)
        if isinstance(value, torch.Tensor):
            return value if dtype is None else value.to(dtype)
        if dtype is None and shared.is_python_scalar(value):
            dtype = dtype_of(shared.scalar_dtype(value, default))
        if isinstance(value, (list, tuple)) and _holds_tensors(value):
            return torch.stack([asarray(part, dtype or dtype_of(default)) for part in value])
        if dtype is None and not hasattr(value, "dtype"):
            value = np.asarray(value)
            dtype = dtype_of(default) if value.dtype.kind == "f" else None
        return torch.tensor(value, dtype=dtype)

    def full(shape, fill_value, dtype=None):
        return torch.broadcast_to(asarray(fill_value, dtype), _shape(shape))

    def arange(start, stop=None, step=1, dtype=None):
        start, stop = (0, start) if stop is None else (start, stop)
        if dtype is None:
            dtype = default if any(isinstance(value, float) for value in (start, stop, step)) else "int64"
        return torch.arange(start, stop, step, dtype=dtype_of(dtype))

    def eye(n_rows, n_cols=None, k=0, dtype=default):
        ones = torch.ones(n_rows, n_rows if n_cols is None else n_cols, dtype=dtype_of(dtype))
        return torch.triu(torch.tril(ones, k), k)

    return {
        "asarray": asarray,
        "astype": lambda x, dtype: asarray(x).to(dtype_of(dtype)),
        "full": full,
        "full_like": lambda x, fill_value, dtype=None: full(x.shape, fill_value, dtype or x.dtype),
        "zeros": lambda shape, dtype=default: torch.zeros(_shape(shape), dtype=dtype_of(dtype)),
        "ones": lambda shape, dtype=default: torch.ones(_shape(shape), dtype=dtype_of(dtype)),
        "zeros_like": lambda x, dtype=None: torch.zeros_like(x, dtype=dtype_of(dtype)),
        "ones_like": lambda x, dtype=None: torch.ones_like(x, dtype=dtype_of(dtype)),
        "eye": eye,
        "arange": arange,
    }


def _holds_tensors(values):
    return any(_holds_tensors(v) if isinstance(v, (list, tuple)) else isinstance(v, torch.Tensor) for v in values)


def _shape(shape):
    return tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)


def _elementwise(asarray, floating, dtype):
    def matched(*operands):
        return shared.matched(operands, dtype, asarray)

    def unary(name, prepare):
        function = getattr(torch, name)
        return lambda x: function(prepare(x))

    def binary(name):
        function = getattr(torch, name)
        return lambda x, y: function(*map(asarray, matched(x, y)))

    def clip(x, min=None, max=None):
        if min is not None:
            x = torch.maximum(*map(asarray, matched(x, min)))
        return x if max is None else torch.minimum(*map(asarray, matched(x, max)))

    def where(condition, x, y):
        return torch.where(asarray(condition), *map(asarray, matched(x, y)))

    return {
        **{name: unary(name, floating) for name in UNARY},
        **{name: unary(name, asarray) for name in UNARY_ANY_DTYPE},
        **{name: binary(own) for name, own in BINARY.items()},
        "clip": clip,
        "where": where,
    }


def _reductions(asarray, floating):
    def over_axes(function, prepare=asarray):
        def reduced(x, axis=None, keepdims=False):
            x = prepare(x)
            axes = shared.normalised_axes(axis, x.ndim)
            return function(x, dim=axes, keepdim=keepdims) if axes else function(x.reshape(1), dim=(0,))

        return reduced

    def axis_by_axis(function, prepare=asarray):
        def reduced(x, axis=None, keepdims=False):
            x = prepare(x)
            for one in sorted(shared.normalised_axes(axis, x.ndim), reverse=True):
                x = function(x, dim=one, keepdim=keepdims)
            return x

        return reduced

    def spread(function):
        def reduced(x, axis=None, correction=0, keepdims=False):
            x = floating(x)
            axes = shared.normalised_axes(axis, x.ndim)
            if not axes:
                return function(x.reshape(1), dim=(0,), correction=correction)
            return function(x, dim=axes, correction=correction, keepdim=keepdims)

        return reduced

    def position(function):
        def found(x, axis=None, keepdims=False):
            return function(asarray(x), dim=axis, keepdim=keepdims)

        return found

    def cumulative_sum(x, axis=None):
        if axis is None and x.ndim != 1:
            raise ValueError("cumulative_sum needs an axis unless the array has one dimension")
        return torch.cumsum(x, dim=0 if axis is None else axis)

    return {
        "sum": over_axes(torch.sum),
        "mean": over_axes(torch.mean, floating),
        "max": over_axes(torch.amax),
        "min": over_axes(torch.amin),
        "any": axis_by_axis(torch.any),
        "all": axis_by_axis(torch.all),
        "prod": axis_by_axis(torch.prod),
        "var": spread(torch.var),
        "std": spread(torch.std),
        "argmax": position(torch.argmax),
        "argmin": position(torch.argmin),
        "cumulative_sum": cumulative_sum,
    }


def _linear_algebra(asarray):
    return {
        "matmul": lambda x, y: torch.matmul(asarray(x), asarray(y)),
        "tensordot": lambda x, y, axes=2: torch.tensordot(asarray(x), asarray(y), dims=axes),
        "vecdot": lambda x, y, axis=-1: torch.sum(asarray(x) * asarray(y), dim=axis),
        "matrix_transpose": lambda x: torch.swapaxes(x, -1, -2),
    }


def _shapes(asarray):
    def stack(arrays, axis=0):
        return torch.stack([asarray(x) for x in shared.matched(arrays, None, asarray)], dim=axis)

    def concat(arrays, axis=0):
        parts = [asarray(x) for x in shared.matched(arrays, None, asarray)]
        return torch.cat([x.reshape(-1) for x in parts]) if axis is None else torch.cat(parts, dim=axis)

    def take(x, indices, axis=None):
        if axis is None and x.ndim != 1:
            raise ValueError("take needs an axis unless the array has one dimension")
        return torch.index_select(x, 0 if axis is None else axis, asarray(indices).to(torch.int64))

    def tile(x, repetitions):
        repetitions = (1,) * (x.ndim - len(repetitions)) + tuple(repetitions)
        return torch.tile(x, repetitions)

    def roll(x, shift, axis=None):
        return torch.roll(x, shift, dims=axis)

    return {
        "reshape": lambda x, shape: torch.reshape(x, _shape(shape)),
        "expand_dims": lambda x, axis=0: torch.unsqueeze(x, axis),
        "squeeze": lambda x, axis: torch.squeeze(x, dim=shared.normalised_axes(axis, x.ndim)),
        "concat": concat,
        "stack": stack,
        "permute_dims": lambda x, axes: torch.permute(x, tuple(axes)),
        "moveaxis": lambda x, source, destination: torch.moveaxis(x, source, destination),
        "broadcast_to": lambda x, shape: torch.broadcast_to(asarray(x), tuple(shape)),
        "flip": lambda x, axis=None: torch.flip(x, dims=shared.normalised_axes(axis, x.ndim)),
        "roll": roll,
        "take": take,
        "tile": tile,
        "repeat": lambda x, repeats, axis=None: torch.repeat_interleave(x, repeats, dim=axis),
        "tril": lambda x, k=0: torch.tril(x, diagonal=k),
        "triu": lambda x, k=0: torch.triu(x, diagonal=k),
    }
