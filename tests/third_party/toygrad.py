"""toygrad: a toy of a framework. Arrays that remember how they were made, and reverse mode over them, on plain NumPy."""

import numpy as np

__version__ = "1.2"


class Array:
    """value: np.ndarray; parents: pairs (Array, vjp), vjp: cotangent of this -> cotangent of the parent, in its shape."""

    __array_ufunc__ = None  # so that numpy's arrays leave operators to this class

    def __init__(self, value, parents=()):
        self.value, self.parents = np.asarray(value), parents

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    dtype = property(lambda self: self.value.dtype)

    def __getitem__(self, index):
        def scattered(cotangent):
            whole = np.zeros_like(self.value)
            np.add.at(whole, index, cotangent)
            return whole

        return Array(self.value[index], ((self, scattered),))

    def __neg__(self):
        return elementwise(np.negative, (lambda c, y, x: -c,), self)

    def __abs__(self):
        return absolute(self)

    def __pow__(self, exponent):
        if isinstance(exponent, Array):
            return elementwise(np.power, (power_slope, lambda c, y, x, n: c * y * np.log(x)), self, exponent)
        return elementwise(lambda x: x**exponent, (lambda c, y, x: c * exponent * x ** (exponent - 1),), self)

    def __matmul__(self, other):
        left, right = lift(self), lift(other)
        return Array(
            left.value @ right.value,
            ((left, lambda c: c @ right.value.T), (right, lambda c: left.value.T @ c)),
        )

    def __rmatmul__(self, other):
        return lift(other) @ self


def power_slope(c, y, x, n):
    return c * n * x ** (n - 1)


def lift(value):
    return value if isinstance(value, Array) else Array(value)


def as_operands(values):
    """Arrays; Python's numbers take the dtype of the arrays beside them."""
    floats = [v.dtype for v in values if hasattr(v, "dtype") and v.dtype.kind == "f"]
    return [lift(v if hasattr(v, "dtype") or not floats else np.asarray(v, floats[0])) for v in values]


def elementwise(forward, vjps, *operands):
    """vjps: one for each operand, (cotangent, result, *values) -> cotangent before broadcasting is undone."""
    arrays = as_operands(operands)
    values = [a.value for a in arrays]
    result = forward(*values)

    def back(vjp, shape):
        return lambda c: unbroadcast(vjp(c, result, *values), shape)

    return Array(
        result, tuple((a, back(vjp, a.shape)) for a, vjp in zip(arrays, vjps, strict=True) if a.dtype.kind == "f")
    )


def unbroadcast(cotangent, shape):
    cotangent = np.asarray(cotangent)
    cotangent = cotangent.sum(axis=tuple(range(cotangent.ndim - len(shape))))
    stretched = tuple(axis for axis, size in enumerate(shape) if size == 1 != cotangent.shape[axis])
    return cotangent.sum(axis=stretched, keepdims=True)


def add(x, y):
    return elementwise(np.add, (lambda c, r, x, y: c, lambda c, r, x, y: c), x, y)


def subtract(x, y):
    return elementwise(np.subtract, (lambda c, r, x, y: c, lambda c, r, x, y: -c), x, y)


def multiply(x, y):
    return elementwise(np.multiply, (lambda c, r, x, y: c * y, lambda c, r, x, y: c * x), x, y)


def divide(x, y):
    return elementwise(np.true_divide, (lambda c, r, x, y: c / y, lambda c, r, x, y: -c * r / y), x, y)


def exp(x):
    return elementwise(np.exp, (lambda c, y, x: c * y,), x)


def tanh(x):
    return elementwise(np.tanh, (lambda c, y, x: c * (1 - y * y),), x)


def absolute(x):
    return elementwise(np.abs, (lambda c, y, x: c * np.sign(x),), x)


def sum(x, axis=None, keepdims=False):
    x = lift(x)
    kept = np.sum(x.value, axis=axis, keepdims=True)
    total = np.sum(x.value, axis=axis, keepdims=keepdims)
    back = ((x, lambda c: np.broadcast_to(np.reshape(c, kept.shape), x.shape)),) if x.dtype.kind == "f" else ()
    return Array(total, back)


def mean(x, axis=None, keepdims=False):
    x = lift(x)
    total = sum(x, axis, keepdims)
    return divide(total, x.value.size // max(total.value.size, 1))


def stack(arrays, axis=0):
    arrays = as_operands(arrays)

    def part(number):
        return lambda c: np.take(c, number, axis=axis)

    return Array(np.stack([a.value for a in arrays], axis=axis), tuple((a, part(n)) for n, a in enumerate(arrays)))


def ones(shape, dtype):
    return Array(np.ones(shape, dtype))


OPERATORS = {"add": add, "sub": subtract, "mul": multiply, "truediv": divide}
for _name, _function in OPERATORS.items():
    setattr(Array, f"__{_name}__", lambda x, y, f=_function: f(x, y))
    setattr(Array, f"__r{_name}__", lambda x, y, f=_function: f(y, x))
for _name in ("lt", "le", "gt", "ge"):
    setattr(Array, f"__{_name}__", lambda x, y, n=_name: Array(getattr(x.value, f"__{n}__")(lift(y).value)))


def gradient(output, inputs, cotangent=1.0):
    """The cotangents of inputs, starting from that of a scalar output; None for those that it does not depend on."""
    order, seen = [], set()

    def visit(array):
        if id(array) not in seen:
            seen.add(id(array))
            for parent, _ in array.parents:
                visit(parent)
            order.append(array)

    visit(output)
    found = {id(output): np.full_like(output.value, cotangent)}
    for array in reversed(order):
        for parent, vjp in array.parents if id(array) in found else ():
            found[id(parent)] = found.get(id(parent), 0) + vjp(found[id(array)])
    return [found.get(id(array)) for array in inputs]
