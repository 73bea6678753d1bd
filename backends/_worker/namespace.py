"""Runs inside a backend's interpreter: Python >= 3.9, numpy >= 1.22, nothing else.

The object that a portable step receives as `xp`, and the rules on dtypes and axes that all backends share.
"""

import difflib
import math

from .names import DTYPES, XP_NAMES

CONSTANTS = {"pi": math.pi, "e": math.e, "inf": math.inf, "nan": math.nan, "newaxis": None}
PYTHON_SCALARS = (bool, int, float)


class Namespace:
    """The functions of one backend for one dtype, as attributes; any other attribute raises an error that helps."""

    def __init__(self, functions, dtype):
        self.__dict__.update(functions)
        self._dtype = dtype

    def __getattr__(self, name):
        names = [one for one in XP_NAMES if one in self.__dict__]
        close = difflib.get_close_matches(name, names, n=1)
        suggestion = f", did you mean {close[0]!r}?" if close else ";"
        raise AttributeError(f"xp has no {name!r}{suggestion} it guarantees: {', '.join(names)}")

    def __repr__(self):
        return f"<xp of {self._dtype}>"


def build(functions, dtype, names=XP_NAMES):
    """Return the Namespace of `functions` (name -> function or dtype object) and the constants.

    dtype: "float32" or "float64", the dtype of the case. names: those that the manifest declares, if not all.
    Raises ValueError unless the names are these and the constants, no more and no less.
    """
    provided = {**CONSTANTS, **functions}
    missing = [name for name in names if name not in provided]
    unknown = sorted(set(provided) - set(names) - set(CONSTANTS))
    if missing or unknown:
        raise ValueError(f"xp of a backend: missing {missing}, not guaranteed {unknown}")
    return Namespace(provided, dtype)


def dtype_objects(make):
    """Return {"float32": make("float32"), ...}: what the framework compares and accepts as a dtype."""
    return {name: make(name) for name in DTYPES}


def is_python_scalar(value):
    """Exact types: numpy's float64 is a subclass of float, but it has a dtype of its own to be kept."""
    return type(value) in PYTHON_SCALARS


def dtype_name(dtype):
    """Its bare name: frameworks write float32, torch.float32, ..."""
    return str(dtype).rpartition(".")[2]


def is_inexact(dtype):
    """Whether a dtype (or its name) is a float or complex one."""
    return dtype_name(dtype).startswith(("float", "complex"))


def scalar_dtype(value, default):
    """Return the dtype's name for a Python scalar that stands alone."""
    if type(value) is float:
        return default
    return "bool" if type(value) is bool else "int64"


def matched(operands, default, asarray):
    """Return the operands as arrays; Python scalars take the dtype of the arrays beside them.

    default: the dtype's name for Python floats if no array beside them is inexact.
    asarray: (value, dtype name or None) -> array of the backend; called for whatever has no dtype.
    """
    arrays = [
        value if is_python_scalar(value) or hasattr(value, "dtype") else asarray(value, None) for value in operands
    ]
    dtypes = [dtype_name(value.dtype) for value in arrays if not is_python_scalar(value)]
    dtypes = [dtype for dtype in dtypes if is_inexact(dtype)] or dtypes
    if not dtypes and any(type(value) is float for value in arrays):
        dtypes = [default]

    def dtype_for(scalar):
        own = scalar_dtype(scalar, default)
        if dtypes and (is_inexact(dtypes[0]) or not (is_inexact(own) or dtypes[0] == "bool")):
            return dtypes[0]
        return own

    return [asarray(value, dtype_for(value)) if is_python_scalar(value) else value for value in arrays]


def normalised_axis(axis, ndim):
    """Return 0 <= axis < ndim; raises IndexError for one that does not exist."""
    if not -ndim <= axis < ndim:
        raise IndexError(f"axis {axis} does not exist in an array of {ndim} dimensions")
    return axis % ndim if ndim else 0


def normalised_axes(axis, ndim):
    """Return a tuple of axes, each 0 <= axis < ndim. None means all of them."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    return tuple(normalised_axis(one, ndim) for one in axes)


def moved_axes(source, destination, ndim):
    """Return the permutation that moveaxis is, as a tuple of ndim axes."""
    sources, destinations = normalised_axes(source, ndim), normalised_axes(destination, ndim)
    order = [axis for axis in range(ndim) if axis not in sources]
    for target, axis in sorted(zip(destinations, sources)):
        order.insert(target, axis)
    return tuple(order)
