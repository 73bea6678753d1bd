"""Runs inside the interpreter of the numpy backend: Python >= 3.9, numpy >= 1.22, HIPS autograd.

`namespace` is what the model runs on: autograd's NumPy, on plain arrays and under tracing. Where autograd has no
reverse rule, or a wrong one (where and broadcast_to that broadcast, tile, flip, prod with a zero, a traced fill value),
the function is composed from ones that have it, or is a primitive here.

`complex_namespace` is the reference: the same functions on complex arrays whose imaginary part is h times a direction.
Analytic functions carry it along; what decides (comparisons, maxima, rounding) decides on real parts. Values, the real
parts, are those of `namespace`; a point outside a function's domain is NaN as there, not a complex number.
"""

import autograd.numpy as anp
import numpy as np
from autograd.core import JVPNode, VJPNode
from autograd.extend import defvjp, primitive, register_notrace
from autograd.numpy.numpy_vjps import unbroadcast_f
from autograd.tracer import getval as value_of
from gradcheck_worker import namespace as shared

UNARY = {  # name -> NumPy's name before the array API
    "sqrt": "sqrt", "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p", "log2": "log2", "log10": "log10",
    "sin": "sin", "cos": "cos", "tan": "tan", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
    "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
    "reciprocal": "reciprocal",
}  # fmt: skip
UNARY_ANY_DTYPE = {
    "abs": "abs", "sign": "sign", "negative": "negative", "square": "square",
    "floor": "floor", "ceil": "ceil", "round": "round",
}  # fmt: skip
BINARY = {
    "add": "add", "subtract": "subtract", "multiply": "multiply", "pow": "power", "atan2": "arctan2",
    "divide": "true_divide", "maximum": "maximum", "minimum": "minimum", "remainder": "remainder",
}  # fmt: skip
COMPARISONS = {
    "less": "less", "less_equal": "less_equal", "greater": "greater", "greater_equal": "greater_equal",
    "equal": "equal", "not_equal": "not_equal", "logical_and": "logical_and", "logical_or": "logical_or",
}  # fmt: skip
PREDICATES = {"isfinite": "isfinite", "isnan": "isnan", "isinf": "isinf", "logical_not": "logical_not"}


def namespace(dtype):
    """Return the Namespace of autograd's NumPy; dtype: "float32" or "float64"."""
    return shared.build(_functions(dtype), dtype)


def complex_namespace(dtype):
    """Return the Namespace for complex-step differentiation; dtype: of the values, not the complex one.

    imag(f(x + 1j * h * v)) / h is the derivative of f's values along v. Use h = 1e-30 with float64; in float32
    that leaves the range (h times a small derivative is subnormal): evaluate a float32 case here in float64.
    At a tie (maximum, relu at zero, clip at a bound) the slope is the mean, which is autograd's convention as well.
    stop_gradient keeps the imaginary part: this measures what the values do, not what reverse mode is told.
    Operators are NumPy's: `x > y` compares real parts (imaginary ones break ties), `abs(x)`, x.max() and x.var()
    do not differentiate; a step uses xp.abs, xp.max, xp.var.
    """
    return shared.build({**_functions(dtype), **_complex_overrides(dtype)}, dtype)


def _functions(dtype):
    make = _creation(dtype)
    return {
        **shared.dtype_objects(np.dtype),
        **make,
        **_elementwise(make["asarray"], dtype),
        **_reductions(make["asarray"]),
        **_linear_algebra(make["asarray"]),
        **_shapes(make["asarray"]),
        **_extras(make["asarray"]),
        "stop_gradient": _stop_gradient,
    }


# ---- primitives: what autograd lacks


@primitive
def _stop_gradient(x):
    return x


defvjp(_stop_gradient, lambda ans, x: lambda g: anp.zeros_like(g))  # a node of its own: a diagnosis can see it


@primitive
def _where(condition, x, y):
    return np.where(condition, x, y)


def _zero(x):
    """Return a zero that leaves the dtype of what it meets."""
    return np.zeros((), dtype=np.result_type(x))


defvjp(
    _where,
    None,
    lambda ans, c, x, y: unbroadcast_f(x, lambda g: _where(c, g, _zero(g))),
    lambda ans, c, x, y: unbroadcast_f(y, lambda g: _where(c, _zero(g), g)),
)


@primitive
def _cast(x, dtype):
    """Cast; complex to float keeps the imaginary part, at that precision."""
    x, dtype = np.asarray(x), np.dtype(dtype)
    if x.dtype.kind == "c":
        if dtype.kind == "f":
            return x.astype(np.result_type(dtype, np.complex64))
        x = x if dtype.kind == "c" else x.real
    return x.astype(dtype)


defvjp(_cast, lambda ans, x, dtype: lambda g: _cast(g, np.result_type(x)), argnums=(0,))


@primitive
def _cast_to_discrete(x, dtype):
    return _cast(x, dtype)


for _node in (VJPNode, JVPNode):
    register_notrace(_node, _cast_to_discrete)


@primitive
def _prod_last(x):
    """Product over the last axis."""
    return np.prod(x, axis=-1)


def _vjp_prod_last(ans, x):
    """The product of the others, not ans / x: right where an entry is zero."""
    others = anp.expand_dims(x, -2)
    itself = np.eye(x.shape[-1], dtype=bool)
    return lambda g: anp.expand_dims(g, -1) * _prod_last(_where(itself, np.ones((), dtype=x.dtype), others))


defvjp(_prod_last, _vjp_prod_last)


@primitive
def _sigmoid(x):
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + decay), decay / (1 + decay))


defvjp(_sigmoid, lambda ans, x: lambda g: g * ans * _sigmoid(-x))  # not 1 - ans: that loses all digits at large x


@primitive
def _softplus(x):
    return np.logaddexp(x, _zero(x))


defvjp(_softplus, lambda ans, x: lambda g: g * _sigmoid(x))


# ---- groups of functions


def _creation(dtype):
    def asarray(value, dtype=None):
        if shared.is_python_scalar(value):
            return np.asarray(value, dtype=dtype or shared.scalar_dtype(value, default))
        if hasattr(value, "dtype"):
            return value if dtype is None or value.dtype == np.dtype(dtype) else astype(value, dtype)
        array = anp.array(value)  # a list, perhaps with traced values in it
        if dtype is None and array.dtype.kind == "f":
            dtype = default
        return array if dtype is None else astype(array, dtype)

    def astype(x, dtype):
        return _cast(x, dtype) if np.dtype(dtype).kind in "fc" else _cast_to_discrete(x, dtype)

    def full(shape, fill_value, dtype=None):
        return anp.array(_broadcast_to(asarray(fill_value, dtype), shape))

    def full_like(x, fill_value, dtype=None):
        return full(x.shape, fill_value, dtype or x.dtype)

    default = dtype
    return {
        "asarray": asarray,
        "astype": astype,
        "full": full,
        "full_like": full_like,
        "zeros": lambda shape, dtype=default: np.zeros(shape, dtype=dtype),
        "ones": lambda shape, dtype=default: np.ones(shape, dtype=dtype),
        "zeros_like": lambda x, dtype=None: np.zeros(x.shape, dtype=dtype or x.dtype),
        "ones_like": lambda x, dtype=None: np.ones(x.shape, dtype=dtype or x.dtype),
        "eye": lambda n_rows, n_cols=None, k=0, dtype=default: np.eye(n_rows, n_cols, k=k, dtype=dtype),
        "arange": lambda start, stop=None, step=1, dtype=None: _arange(start, stop, step, dtype, default),
    }


def _arange(start, stop, step, dtype, default):
    start, stop = (0, start) if stop is None else (start, stop)
    if dtype is None:
        dtype = default if any(isinstance(value, float) for value in (start, stop, step)) else "int64"
    return np.arange(start, stop, step, dtype=dtype)


def _floating(asarray):
    """Return the function that turns Python scalars and integer arrays into arrays of the dtype of the case."""
    default = asarray(0.0).dtype

    def floating(x):
        x = asarray(x)
        return x if x.dtype.kind in "fc" else asarray(x, default)

    return floating


def _elementwise(asarray, dtype):
    floating = _floating(asarray)

    def matched(*operands):
        return shared.matched(operands, dtype, asarray)

    def unary(name, prepare=floating):
        function = getattr(anp, name)
        return lambda x: function(prepare(x))

    def binary(name):
        function = getattr(anp, name)
        return lambda x, y: function(*matched(x, y))

    def clip(x, min=None, max=None):
        if min is not None:
            x = anp.maximum(*matched(x, min))
        return x if max is None else anp.minimum(*matched(x, max))

    return {
        **{name: unary(old) for name, old in UNARY.items()},
        **{name: unary(old, asarray) for name, old in {**UNARY_ANY_DTYPE, **PREDICATES}.items()},
        **{name: binary(old) for name, old in {**BINARY, **COMPARISONS}.items()},
        "clip": clip,
        "where": lambda condition, x, y: _where(value_of(condition), *matched(x, y)),
    }


def _reductions(asarray):
    floating = _floating(asarray)

    def mean(x, axis=None, keepdims=False):
        return anp.mean(floating(x), axis=axis, keepdims=keepdims)

    def var(x, axis=None, correction=0, keepdims=False):
        x = floating(x)
        count = np.prod([x.shape[one] for one in shared.normalised_axes(axis, x.ndim)], dtype=int)
        squares = anp.square(x - anp.mean(x, axis=axis, keepdims=True))
        return anp.sum(squares, axis=axis, keepdims=keepdims) / asarray(float(count - correction), x.dtype)

    def prod(x, axis=None, keepdims=False):
        x, kept = _axes_last(asarray(x), axis)
        return anp.reshape(_prod_last(x), kept) if keepdims else _prod_last(x)

    def reduction(name):
        function = getattr(anp, name)
        return lambda x, axis=None, keepdims=False: function(asarray(x), axis=axis, keepdims=keepdims)

    return {
        **{name: reduction(name) for name in ("sum", "max", "min", "any", "all", "argmax", "argmin")},
        "mean": mean,
        "prod": prod,
        "var": var,
        "std": lambda x, axis=None, correction=0, keepdims=False: anp.sqrt(var(x, axis, correction, keepdims)),
        "cumulative_sum": lambda x, axis=None: anp.cumsum(x, axis=_only_axis(axis, x.ndim)),
    }


def _only_axis(axis, ndim):
    if axis is None and ndim != 1:
        raise ValueError("cumulative_sum needs an axis unless the array has one dimension")
    return 0 if axis is None else shared.normalised_axis(axis, ndim)


def _axes_last(x, axis):
    """Return x with the reduced axes flattened into one at the end, and the result's shape under keepdims."""
    reduced = shared.normalised_axes(axis, x.ndim)
    others = tuple(one for one in range(x.ndim) if one not in reduced)
    kept = tuple(1 if one in reduced else x.shape[one] for one in range(x.ndim))
    x = anp.transpose(x, others + reduced)
    return anp.reshape(x, (*x.shape[: len(others)], -1)), kept


def _linear_algebra(asarray):
    def vecdot(x, y, axis=-1):
        return anp.sum(asarray(x) * asarray(y), axis=axis)

    return {
        "matmul": anp.matmul,
        "tensordot": lambda x, y, axes=2: anp.tensordot(x, y, axes=axes),
        "vecdot": vecdot,
        "matrix_transpose": lambda x: anp.swapaxes(x, -1, -2),
    }


def _broadcast_to(x, shape):
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    x = anp.reshape(x, (1,) * (len(shape) - anp.ndim(x)) + anp.shape(x))
    return anp.broadcast_to(x, shape)


def _along(axis, ndim, index):
    """Return the index that applies `index` along one axis."""
    return (slice(None),) * shared.normalised_axis(axis, ndim) + (index,)


def _shapes(asarray):
    def permute_dims(x, axes):
        return anp.transpose(x, shared.normalised_axes(tuple(axes), x.ndim))

    def concat(arrays, axis=0):
        arrays = shared.matched(arrays, None, asarray)
        if axis is None:
            arrays, axis = [anp.reshape(x, (-1,)) for x in arrays], 0
        return anp.concatenate(arrays, axis=axis)

    def flip(x, axis=None):
        for one in shared.normalised_axes(axis, x.ndim):
            x = x[_along(one, x.ndim, slice(None, None, -1))]
        return x

    def roll(x, shift, axis=None):
        if axis is None:
            return anp.reshape(anp.roll(anp.reshape(x, (-1,)), shift), x.shape)
        axes = shared.normalised_axes(axis, x.ndim)
        shifts = shift if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
        for one, places in zip(axes, shifts):
            x = anp.roll(x, places, axis=one)
        return x

    def take(x, indices, axis=None):
        axis = _only_axis(axis, x.ndim)
        return x[_along(axis, x.ndim, np.asarray(value_of(indices)))]

    def repeat(x, repeats, axis=None):
        x, axis = (anp.reshape(x, (-1,)), 0) if axis is None else (x, shared.normalised_axis(axis, x.ndim))
        shape = x.shape
        x = anp.reshape(x, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
        x = _broadcast_to(x, (*shape[: axis + 1], repeats, *shape[axis + 1 :]))
        return anp.reshape(x, (*shape[:axis], shape[axis] * repeats, *shape[axis + 1 :]))

    def tile(x, repetitions):
        repetitions = tuple(repetitions) if isinstance(repetitions, (tuple, list)) else (repetitions,)
        ndim = max(x.ndim, len(repetitions))
        repetitions = (1,) * (ndim - len(repetitions)) + repetitions
        return anp.tile(anp.reshape(x, (1,) * (ndim - x.ndim) + x.shape), repetitions)

    def triangle(keep):
        return lambda x, k=0: _where(keep(np.ones(x.shape[-2:], dtype=bool), k), x, np.zeros((), dtype=x.dtype))

    return {
        "reshape": lambda x, shape: anp.reshape(x, shape),
        "expand_dims": lambda x, axis=0: anp.expand_dims(x, axis),
        "squeeze": lambda x, axis: anp.squeeze(x, axis=axis),
        "concat": concat,
        "stack": lambda arrays, axis=0: anp.stack(shared.matched(arrays, None, asarray), axis=axis),
        "permute_dims": permute_dims,
        "moveaxis": lambda x, source, destination: permute_dims(x, shared.moved_axes(source, destination, x.ndim)),
        "broadcast_to": _broadcast_to,
        "flip": flip,
        "roll": roll,
        "take": take,
        "tile": tile,
        "repeat": repeat,
        "tril": triangle(np.tril),
        "triu": triangle(np.triu),
    }


def _extras(asarray):
    floating = _floating(asarray)

    def shifted(x, axis):
        """Return x minus its largest value along axis, and that value; both finite wherever x's largest value is."""
        largest = np.max(value_of(x).real, axis=axis, keepdims=True)  # a constant: it cancels from the derivative
        largest = np.where(np.isfinite(largest), largest, np.zeros((), dtype=largest.dtype))
        return x - largest, largest

    def softmax(x, axis=-1):
        x, _ = shifted(floating(x), axis)
        weights = anp.exp(x)
        return weights / anp.sum(weights, axis=axis, keepdims=True)

    def logsumexp(x, axis=None, keepdims=False):
        x, largest = shifted(floating(x), axis)
        total = anp.log(anp.sum(anp.exp(x), axis=axis, keepdims=True)) + largest
        return total if keepdims else anp.squeeze(total, axis=shared.normalised_axes(axis, total.ndim))

    def relu(x):
        x = asarray(x)
        return anp.maximum(x, np.zeros((), dtype=x.dtype))

    return {
        "sigmoid": lambda x: _sigmoid(floating(x)),
        "softplus": lambda x: _softplus(floating(x)),
        "relu": relu,
        "softmax": softmax,
        "logsumexp": logsumexp,
    }


# ---- complex step: the same functions where NumPy's complex ones are not the continuation of the real ones


def _imaginary(real, imaginary):
    """Return real + 1j * imaginary, without arithmetic: an infinite real part would turn the other into NaN."""
    real, imaginary = np.broadcast_arrays(real, imaginary)
    result = np.empty(real.shape, dtype=np.result_type(real.dtype, np.complex64))
    result.real, result.imag = real, imaginary
    return result


def _continued(function, continuation=None):
    """Return the continuation of a real function; out of its domain both parts are NaN, as the real function is."""
    continuation = continuation or function

    def continued(*operands):
        if not any(np.iscomplexobj(x) for x in operands):
            return function(*operands)
        real = function(*(np.real(x) for x in operands))
        with np.errstate(all="ignore"):  # the values have warned, if they must
            imaginary = np.imag(continuation(*operands))
        constant = np.logical_and.reduce(np.broadcast_arrays(*(np.imag(x) == 0 for x in operands)))
        imaginary = np.where(constant, np.zeros((), dtype=real.dtype), imaginary)
        return _imaginary(real, np.where(np.isnan(real), real, imaginary))

    return continued


def _infinite_slope_at_zero(function):
    """sqrt and log: at 0 + ih they are of size sqrt(h) and 1, where the derivative is infinite."""
    return lambda x: np.where(x.real == 0, np.copysign(np.inf, x.imag) * 1j, function(x))


def _continued_atan2(y, x):
    """An arc tangent of the smaller over the larger of the two; it differs from atan2 by a real constant."""
    steep = np.abs(np.real(y)) > np.abs(np.real(x))
    return np.where(steep, -np.arctan(x / y), np.arctan(y / x))


def _continued_pow(x, y):
    """A negative base has real powers only for whole exponents: |x| ** y, with the sign that makes it so."""
    x, y = np.asarray(x) + 0j, np.asarray(y) + 0j
    negative = x.real < 0
    sign = np.where(negative & (np.real(y) % 2 == 1), -1.0, 1.0)
    return sign * np.power(np.where(negative, -x, x), y)


def _continued_sigmoid(x):
    decay = np.exp(np.where(x.real >= 0, -x, x))
    return np.where(x.real >= 0, 1.0, decay) / (1 + decay)


def _continued_softplus(x):
    """log1p(exp(x)), whose imaginary part is that of x times sigmoid(x), plus x's own where x is positive."""
    tail = np.log1p(np.exp(np.where(x.real > 0, -x, x)))
    return np.where(x.real > 0, x, 0) + tail


def _complex_overrides(dtype):
    make = _creation(dtype)
    asarray = make["asarray"]
    floating = _floating(asarray)
    where = _elementwise(asarray, dtype)["where"]

    def matched(*operands):
        return shared.matched(operands, dtype, asarray)

    def unary(old):
        function = getattr(np, old)
        continued = _continued(function, _infinite_slope_at_zero(function) if old in ("sqrt", "log") else None)
        return lambda x: continued(floating(x))

    def on_real(old):
        function = getattr(np, old)
        return lambda *operands: function(*(np.real(x) for x in matched(*operands)))

    def chosen(decide):
        def choose(x, y):
            x, y = matched(x, y)
            value, other = np.real(x), np.real(y)
            result = np.where(decide(value, other) | np.isnan(value), x, y)
            if not np.iscomplexobj(result):
                return result
            return _imaginary(result.real, np.where(value == other, (np.imag(x) + np.imag(y)) / 2, result.imag))

        return choose

    maximum, minimum = chosen(np.greater_equal), chosen(np.less_equal)

    def clip(x, min=None, max=None):
        x = asarray(x) if min is None else maximum(x, min)
        return x if max is None else minimum(x, max)

    def absolute(x):
        x = asarray(x)
        return np.sign(x.real) * x

    def remainder(x, y):
        x, y = matched(x, y)
        values = np.remainder(x.real, y.real)
        if not np.iscomplexobj(x) and not np.iscomplexobj(y):
            return values
        return _imaginary(values, x.imag - np.floor_divide(x.real, y.real) * y.imag)

    sqrt = unary("sqrt")
    var = _reductions(asarray)["var"]
    power, atan2 = _continued(np.power, _continued_pow), _continued(np.arctan2, _continued_atan2)
    sigmoid, softplus = _continued(_sigmoid, _continued_sigmoid), _continued(_softplus, _continued_softplus)
    return {
        **{name: unary(old) for name, old in UNARY.items()},
        **{name: on_real(name) for name in ("sign", "floor", "ceil", "round")},
        **{name: on_real(old) for name, old in {**COMPARISONS, **PREDICATES}.items()},
        **{name: _on_real_axis(getattr(np, name)) for name in ("any", "all", "argmax", "argmin")},
        "abs": absolute,
        "pow": lambda x, y: power(*matched(x, y)),
        "atan2": lambda y, x: atan2(*matched(y, x)),
        "remainder": remainder,
        "maximum": maximum,
        "minimum": minimum,
        "clip": clip,
        "where": lambda condition, x, y: where(np.real(condition), x, y),
        "max": _extreme(np.argmax),
        "min": _extreme(np.argmin),
        "std": lambda x, axis=None, correction=0, keepdims=False: sqrt(var(x, axis, correction, keepdims)),
        "take": lambda x, indices, axis=None: _shapes(asarray)["take"](x, np.real(indices), axis),
        "sigmoid": lambda x: sigmoid(floating(x)),
        "softplus": lambda x: softplus(floating(x)),
        "relu": lambda x: maximum(x, 0),
        "stop_gradient": lambda x: x,
    }


def _on_real_axis(function):
    return lambda x, axis=None, keepdims=False: function(np.real(x), axis=axis, keepdims=keepdims)


def _extreme(position):
    """Return max or min of the real parts, with the imaginary part that is there; of ties, their mean."""

    def extreme(x, axis=None, keepdims=False):
        x, kept = _axes_last(np.asarray(x), axis)
        chosen = np.take_along_axis(x, position(x.real, axis=-1)[..., None], axis=-1)
        if np.iscomplexobj(x):
            tied = x.real == chosen.real
            total = np.sum(np.where(tied, x.imag, _zero(x.imag)), axis=-1, keepdims=True)
            chosen = _imaginary(chosen.real, total / np.maximum(1, np.sum(tied, axis=-1, keepdims=True)))
        return chosen.reshape(kept) if keepdims else chosen[..., 0]

    return extreme
