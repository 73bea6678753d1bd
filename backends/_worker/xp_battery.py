"""Runs inside a backend's interpreter: Python >= 3.9, numpy >= 1.22, nothing else.

What every backend's xp must do: one table of small scenarios, each naming the function under test, with a reference in
plain NumPy. A contract test runs each in float64 and float32, compares values with the reference and, where
`differentiable`, the gradient of sum(value * cotangent) with differences. Inputs keep away from kinks and from the ends
of domains, so both comparisons are meaningful; what happens at large arguments has scenarios of its own.
"""

from typing import Callable, NamedTuple

import numpy as np

from .names import CONSTANTS, DTYPES, XP_NAMES

GOLDEN = 0.6180339887498949


class Scenario(NamedTuple):
    """One use of one name.

    name: "matmul[batched]"; covers: the name in XP_NAMES under test; shapes: of the inputs, as a tuple of tuples;
    function: (xp, *arrays) -> array; reference: (np, *arrays) -> array, of the same shape and, for floats, dtype.
    low, high: the range of the inputs. differentiable: whether a gradient with regard to every input makes sense.
    """

    name: str
    covers: str
    shapes: tuple[tuple[int, ...], ...]
    function: Callable
    reference: Callable
    low: float
    high: float
    differentiable: bool

    def inputs(self, dtype="float64"):
        """Return the arrays that the functions take, always the same."""
        return [spread(shape, self.low, self.high, seed).astype(dtype) for seed, shape in enumerate(self.shapes)]

    def expected(self, dtype="float64"):
        """Return the reference's value, as an array; computed in float64, then cast if it is a float."""
        value = np.asarray(self.reference(np, *(x.astype("float64") for x in self.inputs(dtype))))
        return value.astype(dtype) if value.dtype.kind == "f" else value

    def cotangent(self):
        """Return a fixed float64 array in the shape of the value, no two entries alike."""
        return spread(self.expected().shape, -1.0, 1.0, seed=7)


def spread(shape, low, high, seed):
    """Return float64[shape], entries spread over (low, high) without repetition: a Weyl sequence, no generator."""
    count = int(np.prod(shape, dtype=int))
    fractions = (np.arange(1, count + 1) * GOLDEN + 0.237 * seed + 0.05) % 1.0
    return (low + (high - low) * fractions).reshape(shape)


def scenarios():
    """Return all scenarios, in the order of XP_NAMES; raises ValueError if a name has none or a label comes twice."""
    table = [*_elementwise(), *_reductions(), *_linear_algebra(), *_shapes(), *_creation(), *_constants(), *_extras()]
    names = [scenario.name for scenario in table]
    lacking = sorted(set(XP_NAMES) - {scenario.covers for scenario in table})
    repeated = sorted({name for name in names if names.count(name) > 1})
    if lacking or repeated:
        raise ValueError(f"xp battery: no scenario for {lacking}, repeated labels {repeated}")
    return sorted(table, key=lambda scenario: XP_NAMES.index(scenario.covers))


def constant(covers, function, label=""):
    """Return a Scenario without inputs, whose function is its own reference."""
    return one(covers, function, function, label=label, differentiable=False)._replace(shapes=())


def one(covers, function, reference, *shapes, label="", low=-2.0, high=2.0, differentiable=True):
    """Return a Scenario; without shapes it takes one matrix."""
    name = f"{covers}[{label}]" if label else covers
    return Scenario(name, covers, shapes or ((3, 4),), function, reference, low, high, differentiable)


UNARY = {  # name: (NumPy's name, low, high); functions with gradient zero are differentiable too: it must be zero
    "abs": ("abs", -2, 2), "sign": ("sign", -2, 2), "negative": ("negative", -2, 2),
    "reciprocal": ("reciprocal", 0.3, 2), "square": ("square", -2, 2), "sqrt": ("sqrt", 0.1, 3),
    "exp": ("exp", -3, 3), "expm1": ("expm1", -1, 1), "log": ("log", 0.1, 3), "log1p": ("log1p", -0.7, 2),
    "log2": ("log2", 0.1, 3), "log10": ("log10", 0.1, 3), "sin": ("sin", -3, 3), "cos": ("cos", -3, 3),
    "tan": ("tan", -1.2, 1.2), "asin": ("arcsin", -0.9, 0.9), "acos": ("arccos", -0.9, 0.9),
    "atan": ("arctan", -3, 3), "sinh": ("sinh", -2, 2), "cosh": ("cosh", -2, 2), "tanh": ("tanh", -3, 3),
    "asinh": ("arcsinh", -3, 3), "acosh": ("arccosh", 1.2, 4), "atanh": ("arctanh", -0.9, 0.9),
    "floor": ("floor", -3, 3), "ceil": ("ceil", -3, 3), "round": ("round", -3, 3),
}  # fmt: skip
BINARY = {
    "pow": ("power", 0.2, 2), "atan2": ("arctan2", -2, 2), "remainder": ("remainder", 0.4, 3), "add": ("add", -2, 2),
    "subtract": ("subtract", -2, 2), "multiply": ("multiply", -2, 2), "divide": ("true_divide", 0.3, 2),
    "maximum": ("maximum", -2, 2), "minimum": ("minimum", -2, 2),
}  # fmt: skip
COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")


def _elementwise():
    for name, (old, low, high) in UNARY.items():
        yield one(name, _call(name), _call(old), low=low, high=high)
        yield one(name, _call(name), _call(old), (), label="scalar", low=low, high=high)
    for name in ("exp", "sqrt", "tanh"):
        yield one(name, _with_python_scalar(name), _with_python_scalar(name), label="python scalar")
    for name, (old, low, high) in BINARY.items():
        yield one(name, _call(name), _call(old), (3, 4), (3, 4), low=low, high=high)
        yield one(name, _call(name), _call(old), (3, 1), (4,), label="broadcast", low=low, high=high)
        yield one(name, _call(name, 1.7), _call(old, 1.7), label="python scalar", low=low, high=high)
    yield one("divide", lambda xp, x: xp.divide(1, x), lambda np, x: 1 / x, label="python int", low=0.3)
    yield one("multiply", lambda xp, x: 0.1 * x + 1 - x / 3, lambda np, x: 0.1 * x + 1 - x / 3, label="operators")
    yield one("pow", lambda xp, x: xp.pow(x, 2) + x**3, lambda np, x: x**2 + x**3, label="negative base")
    yield one("pow", lambda xp, x: xp.pow(2.0, x), lambda np, x: np.power(2.0, x), label="python base")
    yield one("abs", lambda xp, x: abs(x) * x, lambda np, x: np.abs(x) * x, label="operator", differentiable=False)
    yield one("clip", lambda xp, x: xp.clip(x, -1.0, 0.7), lambda np, x: np.clip(x, -1.0, 0.7))
    yield one("clip", lambda xp, x: xp.clip(x, min=-0.3), lambda np, x: np.maximum(x, -0.3), label="min")
    yield one("clip", lambda xp, x: xp.clip(x, max=0.3), lambda np, x: np.minimum(x, 0.3), label="max")
    yield from _choices()


def _choices():
    def where(xp, x, y):
        return xp.where(x > 0, x * y, y)

    def masked(xp, x):
        return xp.where(x > 0, xp.sqrt(xp.where(x > 0, x, 1.0)), 0.0)

    def indicator(xp, x):
        return xp.where(x > 0, 1.0, 0.1) * x

    yield one("where", where, where, (3, 4), (3, 4))
    yield one("where", where, where, (3, 4), (4,), label="broadcast")
    yield one("where", where, where, (3, 1), (1, 4), label="condition broadcasts")
    yield one("where", masked, masked, label="unselected branch is finite")
    yield one("where", indicator, indicator, label="python scalars")
    for name in COMPARISONS:
        yield one(name, _selected(name), _selected(name), (3, 4), (3, 4))
        yield one(name, _call(name, 0.5), _call(name, 0.5), label="mask", differentiable=False)
    for name in ("logical_and", "logical_or"):
        yield one(name, _selected_by(name), _selected_by(name), (3, 4), (3, 4))
    yield one("logical_not", _not_positive, _not_positive)
    for name, value in (("isfinite", 0.0), ("isnan", 0.0), ("isinf", 0.0)):
        yield one(name, _guarded(name, value), _guarded(name, value))
        yield one(name, _on_special(name), _on_special(name), label="special values", differentiable=False)


def _call(name, *constants):
    return lambda xp, *arrays: getattr(xp, name)(*arrays, *constants)


def _with_python_scalar(name):
    return lambda xp, x: getattr(xp, name)(0.3) * x


def _selected(name):
    return lambda xp, x, y: xp.where(getattr(xp, name)(x, y), x * y, 2.0 * x)


def _selected_by(name):
    return lambda xp, x, y: xp.where(getattr(xp, name)(x > 0, y > 0.5), x * y, 2.0 * y)


def _not_positive(xp, x):
    return xp.where(xp.logical_not(x > 0), x, 2.0 * x)


def _guarded(name, value):
    return lambda xp, x: xp.where(getattr(xp, name)(x), x * x, x)


def _on_special(name):
    def on_special(xp, x):
        ratio = xp.where(x > 1.0, xp.inf, xp.where(x < -1.0, xp.nan, x))
        return getattr(xp, name)(ratio)

    return on_special


AXES = {
    "": {},
    "axis": {"axis": 1},
    "negative axis": {"axis": -2},
    "axes": {"axis": (0, 2)},
    "keepdims": {"axis": 1, "keepdims": True},
    "all axes, keepdims": {"keepdims": True},
}


def _reduce(name, options):
    return lambda xp, *arrays: getattr(xp, name)(*arrays, **options)


def _reductions():
    for label, options in AXES.items():
        for name in ("sum", "mean", "prod", "max", "min", "var", "std"):
            low = 0.5 if name == "prod" else -2.0
            yield one(name, _reduce(name, options), _reduce(name, options), (2, 3, 4), label=label, low=low)
        yield one("any", _picks("any", 1.6, options), _picks("any", 1.6, options), (2, 3, 4), label=label)
        yield one("all", _picks("all", -1.6, options), _picks("all", -1.6, options), (2, 3, 4), label=label)
        if label != "axes":
            for name in ("argmax", "argmin"):
                reduce = _reduce(name, options)
                yield one(name, reduce, reduce, (2, 3, 4), label=label, differentiable=False)
    for name in ("var", "std"):
        corrected, reference = _reduce(name, {"axis": 0, "correction": 1}), _reduce(name, {"axis": 0, "ddof": 1})
        yield one(name, corrected, reference, label="correction")
    yield one(
        "sum",
        lambda xp, x: xp.sum(x > 0, axis=0),
        lambda np, x: np.sum(x > 0, axis=0),
        label="of a mask",
        differentiable=False,
    )
    yield one("max", _normalised, _normalised, label="keepdims broadcasts")
    yield one(
        "prod",
        lambda xp, x: xp.prod(xp.where(x > 1.5, 0.0 * x, x), axis=1),
        lambda np, x: np.prod(np.where(x > 1.5, 0.0 * x, x), axis=1),
        label="with a zero",
    )
    yield one("cumulative_sum", _call("cumulative_sum"), _call("cumsum"), (5,))
    for axis in (0, -1):
        options = {"axis": axis}
        yield one(
            "cumulative_sum", _reduce("cumulative_sum", options), _reduce("cumsum", options), label=f"axis {axis}"
        )


def _picks(name, bound, options):
    def picks(xp, x):
        found = getattr(xp, name)(x > bound, **options)
        return xp.where(found, 1.0, 2.0) * xp.sum(x, **options)

    return picks


def _normalised(xp, x):
    return (x - xp.max(x, axis=1, keepdims=True)) / xp.sum(xp.exp(x), axis=(0, 1), keepdims=True)


MATMUL = {
    "": ((2, 3), (3, 4)),
    "vector, matrix": ((3,), (3, 4)),
    "matrix, vector": ((2, 3), (3,)),
    "vector, vector": ((3,), (3,)),
    "batched": ((2, 3, 4), (2, 4, 5)),
    "batched, one matrix": ((2, 3, 4), (4, 5)),
    "one matrix, batched": ((3, 4), (2, 4, 5)),
    "batch broadcasts": ((2, 1, 3, 4), (5, 4, 2)),
    "batched, vector": ((2, 3, 4), (4,)),
    "vector, batched": ((4,), (2, 4, 3)),
    "two batch axes": ((2, 3, 2, 4), (2, 3, 4, 2)),
    "length one": ((2, 1, 3), (2, 3, 1)),
    "row, column": ((1, 3), (3, 1)),
}


def _linear_algebra():
    for label, shapes in MATMUL.items():
        yield one("matmul", _call("matmul"), _call("matmul"), *shapes, label=label)
    yield one("matmul", lambda xp, x, y: x @ y, lambda np, x, y: np.matmul(x, y), (2, 3), (3, 4), label="operator")
    yield one("matmul", lambda xp, x, y: x @ y.T, lambda np, x, y: np.matmul(x, y.T), (2, 3), (4, 3), label="T")
    yield one(
        "matmul",
        lambda xp, x, y: xp.matmul(x, y) + xp.ones((2, 3, 4)),
        lambda np, x, y: x @ y + np.ones((2, 3, 4)),
        (2, 1, 3),
        (3, 4),
        label="row broadcasts",
    )
    for label, axes, shapes in (
        ("", 1, ((2, 3), (3, 4))),
        ("two axes", 2, ((2, 3, 4), (3, 4, 5))),
        ("outer", 0, ((2,), (3,))),
        ("pairs", ((0, 2), (1, 0)), ((3, 2, 4), (4, 3, 5))),
        ("negative pairs", ((-1,), (-2,)), ((2, 3), (3, 4))),
    ):
        options = {"axes": axes}
        yield one("tensordot", _reduce("tensordot", options), _reduce("tensordot", options), *shapes, label=label)
    yield one("vecdot", _call("vecdot"), lambda np, x, y: np.sum(x * y, axis=-1), (2, 3), (2, 3))
    yield one(
        "vecdot",
        lambda xp, x, y: xp.vecdot(x, y, axis=0),
        lambda np, x, y: np.sum(x * y, axis=0),
        (2, 3),
        (2, 1),
        label="axis, broadcast",
    )
    yield one("matrix_transpose", _call("matrix_transpose"), lambda np, x: np.swapaxes(x, -1, -2), (2, 3, 4))


def _shapes():
    yield one("reshape", _call("reshape", (4, 3)), _call("reshape", (4, 3)))
    yield one("reshape", _call("reshape", (2, -1)), _call("reshape", (2, -1)), label="inferred")
    yield one(
        "reshape",
        lambda xp, x, y: xp.reshape(x, (x.shape[0], 1, -1)) * y,
        lambda np, x, y: x[:, None, :] * y,
        (3, 4),
        (3, 2, 4),
        label="own shape, new axis broadcasts",
    )
    for axis in (0, 1, -1):
        yield one(
            "expand_dims",
            lambda xp, x, y, a=axis: xp.expand_dims(x, axis=a) * y,
            lambda np, x, y, a=axis: np.expand_dims(x, a) * y,
            (3, 4),
            (3, 3, 4) if axis == 0 else (3, 2, 4) if axis == 1 else (3, 4, 2),
            label=f"axis {axis}, broadcasts",
        )
    yield one(
        "expand_dims",
        lambda xp, x: x[:, xp.newaxis, :] + x[None],
        lambda np, x: x[:, None, :] + x[None],
        (3, 3),
        label="by index",
    )
    yield one("squeeze", lambda xp, x: xp.squeeze(x, axis=1), lambda np, x: x[:, 0], (3, 1, 4))
    yield one("squeeze", lambda xp, x: xp.squeeze(x, axis=(0, -1)), lambda np, x: x[0, :, 0], (1, 4, 1), label="axes")
    yield one("squeeze", lambda xp, x: xp.squeeze(x[:, 1:2], axis=-1), lambda np, x: x[:, 1], label="of a slice")
    yield from _joins()
    yield one("permute_dims", _call("permute_dims", (2, 0, 1)), _call("transpose", (2, 0, 1)), (2, 3, 4))
    yield one(
        "permute_dims", _call("permute_dims", (-1, 0, 1)), _call("transpose", (2, 0, 1)), (2, 3, 4), label="negative"
    )
    yield one("moveaxis", _call("moveaxis", 0, -1), _call("moveaxis", 0, -1), (2, 3, 4))
    yield one("moveaxis", _call("moveaxis", (0, 1), (2, 0)), _call("moveaxis", (0, 1), (2, 0)), (2, 3, 4), label="two")
    yield one("broadcast_to", _call("broadcast_to", (3, 4)), _call("broadcast_to", (3, 4)), (4,))
    yield one("broadcast_to", _call("broadcast_to", (2, 3, 4)), _call("broadcast_to", (2, 3, 4)), (3, 1), label="inner")
    yield one(
        "broadcast_to",
        lambda xp, x, y: xp.broadcast_to(x, y.shape) * y,
        lambda np, x, y: x * y,
        (1, 4),
        (3, 4),
        label="a shape",
    )
    yield one(
        "broadcast_to",
        lambda xp, x, y: xp.broadcast_to(x, (1, 4)) * y,
        lambda np, x, y: x * y,
        (4,),
        (3, 4),
        label="length one",
    )
    yield from _rearrangements()


def _joins():
    for axis in (0, 1, -1):
        options = {"axis": axis}
        yield one(
            "concat",
            lambda xp, x, y, o=options: xp.concat([x, y, x], **o),
            lambda np, x, y, o=options: np.concatenate([x, y, x], **o),
            (2, 3),
            (2, 3),
            label=f"axis {axis}",
        )
        yield one(
            "stack",
            lambda xp, x, y, o=options: xp.stack([x, y, x], **o),
            lambda np, x, y, o=options: np.stack([x, y, x], **o),
            (2, 3),
            (2, 3),
            label=f"axis {axis}",
        )
    yield one(
        "concat",
        lambda xp, x, y: xp.concat((x, y), axis=None),
        lambda np, x, y: np.concatenate((x, y), axis=None),
        (2, 3),
        (2, 2),
        label="flat",
    )
    yield one(
        "concat",
        lambda xp, x, y: xp.concat([x, y], axis=1),
        lambda np, x, y: np.concatenate([x, y], axis=1),
        (3, 1),
        (3, 1),
        label="columns",
    )
    yield one(
        "stack",
        lambda xp, x: xp.stack([xp.sum(x), xp.mean(x)]),
        lambda np, x: np.stack([x.sum(), x.mean()]),
        label="scalars",
    )


def _rearrangements():
    yield one("flip", _call("flip"), _call("flip"))
    yield one("flip", lambda xp, x: xp.flip(x, axis=-1), lambda np, x: np.flip(x, axis=-1), label="axis")
    yield one(
        "flip", lambda xp, x: xp.flip(x, axis=(0, 2)), lambda np, x: np.flip(x, axis=(0, 2)), (2, 3, 4), label="axes"
    )
    yield one("roll", _call("roll", 2), _call("roll", 2))
    yield one("roll", lambda xp, x: xp.roll(x, -1, axis=1), lambda np, x: np.roll(x, -1, axis=1), label="axis")
    yield one(
        "roll",
        lambda xp, x: xp.roll(x, (1, -2), axis=(0, -1)),
        lambda np, x: np.roll(x, (1, -2), axis=(0, -1)),
        label="axes",
    )
    index = np.asarray([2, 0, 0])
    yield one("take", lambda xp, x: xp.take(x, index, axis=1), lambda np, x: np.take(x, index, axis=1), label="axis")
    yield one(
        "take",
        lambda xp, x: xp.take(x, xp.asarray([2, 0, 0]), axis=-2),
        lambda np, x: np.take(x, index, axis=-2),
        label="negative axis",
    )
    yield one("take", lambda xp, x: xp.take(x, index), lambda np, x: np.take(x, index), (5,))
    yield one("tile", _call("tile", (2, 3)), _call("tile", (2, 3)))
    yield one("tile", _call("tile", (2,)), _call("tile", (2,)), label="last axis")
    yield one("tile", _call("tile", (2, 1, 1)), _call("tile", (2, 1, 1)), label="new axis")
    yield one("repeat", _call("repeat", 2), _call("repeat", 2), label="flat")
    for axis in (0, -1):
        options = {"axis": axis}
        yield one(
            "repeat",
            lambda xp, x, o=options: xp.repeat(x, 3, **o),
            lambda np, x, o=options: np.repeat(x, 3, **o),
            label=f"axis {axis}",
        )
    for name in ("tril", "triu"):
        yield one(name, _call(name), _call(name))
        yield one(
            name,
            lambda xp, x, n=name: getattr(xp, n)(x, k=-1),
            lambda np, x, n=name: getattr(np, n)(x, k=-1),
            (2, 3, 3),
            label="k, stacked",
        )


def _creation():
    for name in ("zeros", "ones"):
        yield one(
            name,
            lambda xp, x, n=name: x * x + getattr(xp, n)((3, 1)),
            lambda np, x, n=name: x * x + getattr(np, n)((3, 1)),
        )
        yield one(name, _call_shape(name), _call_shape(name), label="own shape")
        yield constant(name, lambda xp, n=name: getattr(xp, n)(3), label="dtype")
        like = name + "_like"
        yield one(
            like, lambda xp, x, n=like: x * x + getattr(xp, n)(x), lambda np, x, n=like: x * x + getattr(np, n)(x)
        )
        yield one(
            like,
            lambda xp, x, n=like: xp.concat([getattr(xp, n)(x[:1]), x]),
            lambda np, x, n=like: np.concatenate([getattr(np, n)(x[:1]), x]),
            label="in concat",
        )
    yield one("full", lambda xp, x: x * xp.full((3, 4), 0.1), lambda np, x: x * np.full((3, 4), 0.1))
    yield one("full", lambda xp, x: xp.full((3, 4), x), lambda np, x: np.full((3, 4), x), (), label="of a variable")
    yield one("full_like", lambda xp, x: x * xp.full_like(x, 0.1), lambda np, x: x * np.full_like(x, 0.1))
    yield one(
        "full_like", lambda xp, x, y: xp.full_like(x, y) * x, lambda np, x, y: y * x, (3, 4), (), label="of a variable"
    )
    yield constant("arange", lambda xp: xp.arange(1, 7, 2))
    yield one(
        "arange", lambda xp, x: x * xp.arange(1.0, 3.0, 0.5), lambda np, x: x * np.arange(1.0, 3.0, 0.5), label="float"
    )
    yield one(
        "arange",
        lambda xp, x: x * xp.astype(xp.arange(x.shape[1]), x.dtype),
        lambda np, x: x * np.arange(4),
        label="own size",
    )
    yield one(
        "eye", lambda xp, x: x * xp.eye(3, 4) + xp.eye(3, 4, k=1), lambda np, x: x * np.eye(3, 4) + np.eye(3, 4, k=1)
    )
    yield one("eye", lambda xp, x: x + xp.eye(x.shape[0]), lambda np, x: x + np.eye(3), (3, 3), label="own size")
    yield one(
        "asarray", lambda xp, x: x * xp.asarray([0.1, 0.2, 0.3, 1.0]), lambda np, x: x * np.asarray([0.1, 0.2, 0.3, 1])
    )
    yield one("asarray", lambda xp, x: x * xp.asarray(0.1) + xp.asarray(x), lambda np, x: x * 0.1 + x, label="scalar")
    yield one(
        "asarray",
        lambda xp, x, y: xp.asarray([x, 0.1, x * y]),
        lambda np, x, y: np.asarray([x, 0.1, x * y]),
        (),
        (),
        label="of variables",
    )
    yield one(
        "asarray",
        lambda xp, x: x + xp.asarray([1, 2, 3, 4], dtype=x.dtype),
        lambda np, x: x + np.arange(1.0, 5.0),
        label="dtype",
    )
    yield one("astype", lambda xp, x: x * xp.astype(x > 0, x.dtype), lambda np, x: x * (x > 0))
    yield one(
        "astype", lambda xp, x: xp.astype(xp.astype(x, xp.float64) ** 2, x.dtype), lambda np, x: x**2, label="and back"
    )
    yield one(
        "astype",
        lambda xp, x: xp.astype(x, xp.int64),
        lambda np, x: x.astype("int64"),
        label="to integers",
        differentiable=False,
    )


def _call_shape(name):
    return lambda xp, x: x + getattr(xp, name)(x.shape) + getattr(xp, name)((x.shape[0], 1))


def _constants():
    for name in CONSTANTS:
        if name == "newaxis":
            yield one(name, lambda xp, x: x[:, xp.newaxis] * x, lambda np, x: x[:, None] * x, (3, 3))
        else:
            yield one(name, lambda xp, x, n=name: xp.where(x > 9.0, getattr(xp, n), x), lambda np, x: x)
    for name in ("pi", "e"):
        yield one(
            name, lambda xp, x, n=name: getattr(xp, n) * x, lambda np, x, n=name: getattr(np, n) * x, label="times"
        )
    for name in DTYPES:
        yield one(
            name,
            lambda xp, x, n=name: x + (2.0 if xp.ones(3, dtype=getattr(xp, n)).dtype == getattr(xp, n) else 0.0),
            lambda np, x: x + 2.0,
        )


def _logsumexp(np, x, axis=None, keepdims=False):
    return np.logaddexp.reduce(x if axis is not None else x.ravel(), axis=axis or 0).reshape(
        np.sum(x, axis=axis, keepdims=keepdims).shape
    )


def _softmax(np, x, axis=-1):
    weights = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return weights / np.sum(weights, axis=axis, keepdims=True)


def _sigmoid(np, x):
    return np.exp(-np.logaddexp(0.0, -x))


def _softplus(np, x):
    return np.logaddexp(0.0, x)


def _extras():
    for label, low, high in (("", -3.0, 3.0), ("large", -90.0, 90.0), ("very large", -800.0, 800.0)):
        yield one("sigmoid", _call("sigmoid"), _sigmoid, (5, 8), label=label, low=low, high=high)
        yield one("softplus", _call("softplus"), _softplus, (5, 8), label=label, low=low, high=high)
        yield one("softmax", _call("softmax"), _softmax, label=label, low=low, high=high)
        yield one("logsumexp", _call("logsumexp"), _logsumexp, label=label, low=low, high=high)
    yield one("sigmoid", lambda xp, x: xp.sigmoid(0.0 * x) * x, lambda np, x: 0.5 * x, label="at zero")
    yield one(
        "softplus", lambda xp, x: xp.softplus(x * x * 0.0 + x - x), lambda np, x: 0.0 * x + np.log(2.0), label="at zero"
    )
    yield one("relu", _call("relu"), lambda np, x: np.maximum(x, 0.0))
    yield one("relu", _call("relu"), lambda np, x: np.maximum(x, 0.0), (), label="scalar", low=1.0)
    yield one("softmax", lambda xp, x: xp.softmax(x, axis=0), lambda np, x: _softmax(np, x, 0), label="axis")
    for label, options in (("axis", {"axis": 1}), ("keepdims", {"axis": 1, "keepdims": True})):
        yield one(
            "logsumexp", _reduce("logsumexp", options), lambda np, x, o=options: _logsumexp(np, x, **o), label=label
        )
    yield one(
        "logsumexp",
        lambda xp, x: xp.logsumexp(xp.where(x > 1.0, -xp.inf, x), axis=0),
        lambda np, x: _logsumexp(np, np.where(x > 1.0, -np.inf, x), axis=0),
        label="masked",
    )
    yield one("stop_gradient", _call("stop_gradient"), lambda np, x: x, differentiable=False)
    yield one(
        "stop_gradient",
        lambda xp, x: x - xp.stop_gradient(x - 1.0),
        lambda np, x: 0.0 * x + 1.0,
        label="in a sum",
        differentiable=False,
    )
