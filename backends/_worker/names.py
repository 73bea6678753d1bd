"""Runs inside a backend's interpreter: Python >= 3.9, nothing else.

The names that `xp` guarantees in a portable step, on every backend, forward and, where it makes sense, in gradient.
Signatures and meaning are those of the Python array API standard; what differs:

- default dtype of zeros, ones, full, eye, of asarray of Python floats, and of functions of Python scalars or integer
  arrays that give floats: the dtype of the case. Python scalars never change the dtype of an array beside them.
- in a float32 case a backend may have no 64-bit types, as JAX by default: float64 and int64 are the 32-bit ones then.
- comparisons are to be written as functions or with < <= > >=; `x == y` is not elementwise on Theano: use xp.equal.
- cumulative_sum(x, axis=None): None for one axis only; no dtype, no include_initial.
- repeat takes one int; take(x, indices, axis) takes a one-dimensional integer array.
- where a derivative does not exist (abs, relu, maximum at a tie) each backend keeps its own convention.
"""

ELEMENTWISE = (
    "abs", "sign", "negative", "reciprocal", "square", "sqrt", "pow",
    "exp", "expm1", "log", "log1p", "log2", "log10",
    "sin", "cos", "tan", "asin", "acos", "atan", "atan2",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
    "floor", "ceil", "round", "remainder",
    "add", "subtract", "multiply", "divide",
    "maximum", "minimum", "clip", "where",
    "less", "less_equal", "greater", "greater_equal", "equal", "not_equal",
    "logical_and", "logical_or", "logical_not",
    "isfinite", "isnan", "isinf",
)  # fmt: skip

REDUCTIONS = ("sum", "mean", "prod", "var", "std", "max", "min", "any", "all", "argmax", "argmin", "cumulative_sum")

LINEAR_ALGEBRA = ("matmul", "tensordot", "vecdot", "matrix_transpose")

SHAPE = (
    "reshape", "expand_dims", "squeeze", "concat", "stack", "permute_dims", "moveaxis", "broadcast_to",
    "flip", "roll", "take", "tile", "repeat", "tril", "triu",
)  # fmt: skip

CREATION = (
    "zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "arange", "eye", "asarray", "astype",
)  # fmt: skip

CONSTANTS = ("pi", "e", "inf", "nan", "newaxis")

DTYPES = ("float32", "float64", "int32", "int64", "bool")

EXTRAS = ("sigmoid", "softplus", "relu", "softmax", "logsumexp", "stop_gradient")  # not in the standard

XP_NAMES = ELEMENTWISE + REDUCTIONS + LINEAR_ALGEBRA + SHAPE + CREATION + CONSTANTS + DTYPES + EXTRAS
