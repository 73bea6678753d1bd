"""Runs inside a backend's interpreter: Python >= 3.9, nothing else. The core reads expressions with it, too.

One equation's expression, from a file that nobody has to trust, as a tree of allowed nodes: arithmetic, comparisons, indexing
by whole numbers and calls of the functions that `xp` guarantees. What is not listed here is an error with its place. There are
no attributes, strings, lambdas or comprehensions, and no name beside the inputs, the equations above, and xp's. Arithmetic of
numbers alone is done here, with limits, so that no power of Python's endless integers is left to run.
"""

import ast
import difflib
import math
import operator
from collections import namedtuple

from .names import CONSTANTS, DTYPES, XP_NAMES

MAX_LENGTH, MAX_DEPTH = 4000, 60
MAX_NUMBER = 2**63 - 1
MAX_SIZE = 2**24  # entries of an array whose size stands in an equation
PARSES = 3  # see gradcheck/source.py

NUMBERS = {"pi": math.pi, "e": math.e, "inf": math.inf, "nan": math.nan}
ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
}
COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
INSTEAD = {  # what has another meaning on arrays, or none on some backend: how it is written
    ast.FloorDiv: "write floor(a / b) for a // b",
    ast.Mod: "write remainder(a, b) for a % b",
    ast.BitAnd: "write logical_and(a, b) for a & b",
    ast.BitOr: "write logical_or(a, b) for a | b",
    ast.BitXor: "write not_equal(a, b) for a ^ b",
    ast.And: "write logical_and(a, b) for a and b",
    ast.Or: "write logical_or(a, b) for a or b",
    ast.Not: "write logical_not(a) for not a",
    ast.Invert: "write logical_not(a) for ~a",
    ast.Eq: "write equal(a, b) for a == b",
    ast.NotEq: "write not_equal(a, b) for a != b",
    ast.IfExp: "write where(condition, a, b) for a if condition else b",
}
ALLOWED = "an equation holds numbers, names, + - * / ** @ < <= > >=, indexing and calls of xp functions"


# arguments by position (fewest, most) and by name -> the functions that have them, as in the array API
_CALLS = {
    (
        1,
        1,
        "",
    ): """abs sign negative reciprocal square sqrt exp expm1 log log1p log2 log10 sin cos tan asin acos atan sinh cosh
        tanh asinh acosh atanh floor ceil round logical_not isfinite isnan isinf sigmoid softplus relu stop_gradient
        matrix_transpose""",
    (
        2,
        2,
        "",
    ): """pow atan2 remainder add subtract multiply divide maximum minimum less less_equal greater greater_equal equal
        not_equal logical_and logical_or matmul reshape permute_dims broadcast_to tile astype""",
    (3, 3, ""): "where moveaxis",
    (1, 3, "min max"): "clip",
    (1, 1, "axis"): "cumulative_sum expand_dims squeeze concat stack flip softmax",
    (1, 1, "axis keepdims"): "sum mean prod max min any all argmax argmin logsumexp",
    (1, 1, "axis keepdims correction"): "var std",
    (2, 2, "axis"): "vecdot roll take repeat",
    (2, 2, "axes"): "tensordot",
    (1, 1, "k"): "tril triu",
    (1, 1, "dtype"): "zeros ones zeros_like ones_like asarray",
    (2, 2, "dtype"): "full full_like",
    (1, 3, "dtype"): "arange",
    (1, 2, "k dtype"): "eye",
}
SIGNATURES = {  # name -> (fewest, most arguments by position, names of further ones)
    name: (fewest, most, tuple(further.split()))
    for (fewest, most, further), names in _CALLS.items()
    for name in names.split()
}
SIZED = {"zeros": (0,), "ones": (0,), "full": (0,), "eye": (0, 1), "broadcast_to": (1,), "tile": (1,), "repeat": (1,)}

# One equation. line: of its first line in the case file; text: its expression in parentheses, each byte in the column where the
# file has it.
Equation = namedtuple("Equation", "name line text")


class Fault(Exception):
    """What is wrong with an equation, and where: line and column of the case file, from 1; columns count bytes of UTF-8."""

    def __init__(self, line, column, message):
        super().__init__(message)
        self.line, self.column, self.message = line, column, message


class Reader:
    """Turns the text of one equation into a tree of allowed nodes, or raises Fault.

    Arithmetic of numbers is done, and names of numbers are replaced by them: operators that remain have an array.
    """

    def __init__(self, equation, known, constants, below):
        self.equation, self.known, self.constants, self.below = equation, known, constants, below
        self.lines = equation.text.split("\n")
        self.depth = 0

    def expression(self):
        text, first = self.equation.text, self.equation.line
        if len(text.strip()) > MAX_LENGTH:
            raise Fault(first, self.start(), f"longer than {MAX_LENGTH} characters: split the equation")
        tree = self.parsed(text)
        if isinstance(tree.body, ast.Tuple) and not tree.body.elts:
            raise Fault(first, self.start(), "the equation is empty")
        tree.body = self.value(tree.body)
        return ast.increment_lineno(tree, first - 1)

    def parsed(self, text):
        try:
            for left in reversed(range(PARSES)):
                try:
                    return ast.parse(text, mode="eval")
                except SystemError:
                    if not left:
                        raise
        except SyntaxError as error:
            line = min(max(error.lineno or 1, 1), len(self.lines))
            column = error.offset if error.lineno == line and error.offset else len(self.lines[line - 1])
            column = len(self.lines[line - 1][: column - 1].encode()) + 1
            if line == 1:  # not the parenthesis that is ours
                column = max(column, self.start())
            what = error.msg
            if "'=='" in what:
                what = "the name on the left of = is the key, the equation is what is on its right"
            message = f"not an expression: {what}"
            raise Fault(self.equation.line + line - 1, column, message) from None
        except (RecursionError, MemoryError, ValueError, OverflowError):
            message = "not an expression that can be read: nested too deeply, or with numbers that are too long"
            raise Fault(self.equation.line, self.start(), message) from None

    def start(self):
        """The column of the first character after the parenthesis."""
        first = self.lines[0]
        return 1 + len(first) - len(first[1:].lstrip()) if first[1:].strip() else 1

    def wrong(self, node, message):
        return Fault(self.equation.line + node.lineno - 1, node.col_offset + 1, message)

    def value(self, node):
        """An array or a number."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.wrong(node, "nested too deeply: split the equation")
        reader = getattr(self, "read_" + type(node).__name__.lower(), None)
        if reader is None:
            what = INSTEAD.get(type(node)) or f"{ALLOWED}, not {_kind(node)}"
            raise self.wrong(node, what)
        result = ast.copy_location(reader(node), node)
        self.depth -= 1
        return result

    def read_constant(self, node):
        if type(node.value) not in (int, float):
            what = "a text" if isinstance(node.value, (str, bytes)) else repr(node.value)
            raise self.wrong(node, f"{ALLOWED}, not {what}")
        return self.number(node, node.value)

    def number(self, node, value):
        if type(value) is int and abs(value) > MAX_NUMBER:
            raise self.wrong(node, "a whole number beyond 2**63")
        if type(value) not in (int, float):
            raise self.wrong(node, "not a real number")
        return ast.copy_location(ast.Constant(value), node)

    def read_name(self, node):
        name = node.id
        if name == self.equation.name and name not in self.known:
            raise self.wrong(node, f"{name!r} reads itself, but is no carry: it has no value yet")
        if name in self.constants:
            return ast.Constant(self.constants[name])
        if name in self.known:
            return node
        if name in NUMBERS:
            return ast.Constant(NUMBERS[name])
        if name in self.below:
            raise self.wrong(node, f"{name!r} is defined further down: equations are carried out in order")
        if name in SIGNATURES:
            raise self.wrong(node, f"{name!r} is a function: call it")
        if name in DTYPES or name in CONSTANTS:
            raise self.wrong(node, f"{name!r} has no place here")
        if name == "xp":
            raise self.wrong(node, "equations call xp's functions by their names alone: tanh(x)")
        raise self.wrong(node, f"unknown name {name!r}{self.suggestion(name, self.known | set(XP_NAMES))}")

    def suggestion(self, name, known):
        same = [one for one in sorted(known) if one.lower() == name.lower()]
        if close := same or difflib.get_close_matches(name, sorted(known), n=1):
            return f", did you mean {close[0]!r}?"
        return ": neither an input, nor an equation above, nor one of xp's names"

    def read_unaryop(self, node):
        if not isinstance(node.op, (ast.USub, ast.UAdd)):
            raise self.wrong(node, INSTEAD[type(node.op)])
        operand = self.value(node.operand)
        if isinstance(node.op, ast.UAdd):  # which not every framework's arrays have
            return operand
        return self.number(node, -operand.value) if is_number(operand) else ast.UnaryOp(node.op, operand)

    def read_binop(self, node):
        if type(node.op) not in ARITHMETIC:
            raise self.wrong(node, INSTEAD.get(type(node.op)) or f"{ALLOWED}, not {_kind(node.op)}")
        left, right = self.value(node.left), self.value(node.right)
        if not (is_number(left) and is_number(right)):
            return ast.BinOp(left, node.op, right)
        a, b = left.value, right.value
        try:
            if isinstance(node.op, ast.Pow) and type(a) is type(b) is int and abs(a) > 1 and b * math.log2(abs(a)) > 64:
                raise self.wrong(node, "a whole number beyond 2**63")
            return self.number(node, ARITHMETIC[type(node.op)](a, b))
        except (ArithmeticError, TypeError) as error:
            raise self.wrong(node, f"cannot be computed: {error}") from None

    def read_compare(self, node):
        if len(node.ops) > 1:
            raise self.wrong(node, "write logical_and(a < b, b < c) for a < b < c")
        if type(node.ops[0]) not in COMPARISONS:
            raise self.wrong(node, INSTEAD.get(type(node.ops[0])) or f"{ALLOWED}, not {_kind(node.ops[0])}")
        return ast.Compare(self.value(node.left), node.ops, [self.value(node.comparators[0])])

    def read_boolop(self, node):
        raise self.wrong(node, INSTEAD[type(node.op)])

    def read_attribute(self, node):
        if isinstance(node.value, ast.Name) and node.value.id == "xp":
            raise self.wrong(
                node, "equations call xp's functions by their names alone: {}, not xp.{}".format(*[node.attr] * 2)
            )
        what = "write matrix_transpose(x) for x.T" if node.attr in ("T", "mT") else "it has no attributes"
        raise self.wrong(node, f"{ALLOWED}: {what}")

    def read_subscript(self, node):
        array = self.value(node.value)
        if is_number(array):
            raise self.wrong(node, "a number has no entries")
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        parts = [ast.copy_location(self.index(part), part) for part in parts]
        index = ast.copy_location(ast.Tuple(parts, ast.Load()), node.slice) if len(parts) > 1 else parts[0]
        return ast.Subscript(array, index, ast.Load())

    def index(self, node):
        """A whole number, a slice of such, None, newaxis or `...`."""
        if isinstance(node, ast.Slice):
            bounds = (bound and self.index(bound) for bound in (node.lower, node.upper, node.step))
            return ast.Slice(*bounds)
        if isinstance(node, ast.Constant) and node.value in (None, ...):
            return node
        if isinstance(node, ast.Name) and node.id == "newaxis" and "newaxis" not in self.known:
            return ast.copy_location(ast.Constant(None), node)
        found = self.value(node)
        if not (is_number(found) and type(found.value) is int):
            raise self.wrong(node, "an index is a whole number, a slice, None or `...`: write take(x, indices, axis=0)")
        return found

    def read_call(self, node):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in SIGNATURES:
            if isinstance(node.func, ast.Attribute):
                return self.read_attribute(node.func)
            functions = set(SIGNATURES) - self.known
            why = "" if name in self.known or name in NUMBERS or name in DTYPES else self.suggestion(name, functions)
            what = f"unknown function {name!r}{why}" if why else "only functions of xp can be called"
            raise self.wrong(node, what)
        fewest, most, further = SIGNATURES[name]
        arguments = [self.argument(argument) for argument in node.args]
        if not fewest <= len(arguments) <= most:
            takes = str(most) if fewest == most else f"{fewest} to {most}"
            named = " and {}".format(", ".join(key + "=" for key in further)) if further else ""
            plural = "s" * (most != 1)
            message = f"{name} takes {takes} argument{plural}{named}, not {len(arguments)}"
            raise self.wrong(node, message)
        keywords = []
        for keyword in node.keywords:
            if keyword.arg not in further:
                takes = ", ".join(further) or "none by name"
                raise self.wrong(keyword.value, f"{name} has no argument {keyword.arg!r} (there is {takes})")
            keywords.append(ast.keyword(keyword.arg, self.argument(keyword.value)))
        self.check_size(node, name, arguments)
        return ast.Call(node.func, arguments, [ast.copy_location(k, node) for k in keywords])

    def argument(self, node):
        """A value, a dtype, a truth value, None, or a list or tuple of arguments: a shape, axes, arrays to be joined."""
        if isinstance(node, (ast.Tuple, ast.List)):
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise self.wrong(node, "nested too deeply: split the equation")
            items = [self.argument(item) for item in node.elts]
            self.depth -= 1
            return ast.copy_location(type(node)(items, ast.Load()), node)
        if isinstance(node, ast.Constant) and node.value in (None, True, False) and type(node.value) is not int:
            return node
        if isinstance(node, ast.Name) and node.id in DTYPES and node.id not in self.known:
            return node
        return self.value(node)

    def check_size(self, node, name, arguments):
        if name == "arange":
            sizes = [_length_of_range(arguments)]
            if sizes[0] is None:
                raise self.wrong(node, "the arguments of arange are numbers")
        else:
            given = [arguments[position] for position in SIZED.get(name, ()) if position < len(arguments)]
            dims = [d for one in given for d in (one.elts if isinstance(one, (ast.Tuple, ast.List)) else [one])]
            if not all(is_number(d) and type(d.value) is int for d in dims):
                raise self.wrong(node, f"sizes and counts are whole numbers: {name} takes no others")
            sizes = [abs(d.value) for d in dims]
        if math.prod(sizes) > MAX_SIZE:
            raise self.wrong(node, f"an array of more than {MAX_SIZE} entries")


def is_number(node):
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _length_of_range(arguments):
    """How many numbers arange gives, or None if that does not stand there."""
    if not all(is_number(argument) for argument in arguments):
        return None
    numbers = [argument.value for argument in arguments]
    start, stop, by = ([0, *numbers] if len(numbers) == 1 else numbers) + [1] * (len(numbers) < 3)
    try:
        return max(0.0, (stop - start) / by)
    except ArithmeticError:
        return None


def _kind(node):
    """What a node is called."""
    words = {
        "Lambda": "a lambda",
        "NamedExpr": "an assignment",
        "Starred": "a star",
        "JoinedStr": "a text",
        "Tuple": "a tuple",
        "List": "a list",
        "Dict": "a dict",
        "Set": "a set",
        "Await": "await",
        "Yield": "yield",
        "YieldFrom": "yield",
    }
    name = type(node).__name__
    if name in ("ListComp", "SetComp", "DictComp", "GeneratorExp"):
        return "a comprehension"
    return words.get(name, name)
