"""Runs inside a backend's interpreter: Python >= 3.9, nothing else. The core reads equations with it, too.

A step written as equations, `h: "tanh(x @ W + h @ U + b)"`, in a case file that nobody has to trust: expressions.py says what one
may hold, and refuses everything else. What has passed is compiled under the name of the case file and at the place where it
stands there: a framework that records the lines of a user's code then records those of the case file.
"""

import ast

from .expressions import SIGNATURES, Equation, Fault, Reader, is_number
from .names import DTYPES

__all__ = ["Equation", "Fault", "laid_out", "read", "step"]

MAX_EQUATIONS = 500


def read(equations, inputs):
    """Check equations in order. inputs: names.

    Returns ({name: ast.Expression of allowed nodes alone}, [Fault]): each equation is in the first, or has a Fault.
    """
    trees, faults = {}, []
    known, constants = set(inputs), {}
    below = [equation.name for equation in equations]
    for number, equation in enumerate(equations[:MAX_EQUATIONS]):
        reader = Reader(equation, known, constants, below[number + 1 :])
        try:
            trees[equation.name] = tree = reader.expression()
            if is_number(tree.body):
                constants[equation.name] = tree.body.value
        except Fault as fault:
            faults.append(fault)
        known.add(equation.name)  # a broken one, too: what reads it is not wrong
    if len(equations) > MAX_EQUATIONS:
        beyond = equations[MAX_EQUATIONS]
        faults.append(Fault(beyond.line, 1, f"more than {MAX_EQUATIONS} equations"))
    return trees, faults


def step(equations, inputs, carries, outputs, path):
    """The step function of equations: (xp, **inputs) -> {carry or output: value}. Raises Fault.

    Equations are carried out in order, like assignments: the name of a carry means its old value up to and in its own
    equation, and its new value after it. outputs: which of the other equations are returned. path: of the case file.
    """
    trees, faults = read(equations, inputs)
    if faults:
        raise faults[0]
    code = {name: compile(tree, path, "eval") for name, tree in trees.items()}
    functions = {node.id for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.Name)}
    functions &= set(SIGNATURES) | set(DTYPES)
    returned = [name for name in trees if name in carries or name in outputs]

    def equations_step(xp, **values):
        names = {"__builtins__": {}, **{name: function_of(xp, name) for name in functions}}
        for name, expression in code.items():
            values[name] = eval(expression, names, values)
        return {name: values[name] for name in returned}

    return equations_step


def function_of(xp, name):
    """What xp has under a name; if it has none, what says so when it is called: there, the traceback knows the line."""
    try:
        return getattr(xp, name)
    except AttributeError as error:
        lacking = error

    def missing(*_, **__):
        raise lacking

    return missing


def laid_out(raw, column):
    """An equation's text as Equation has it. raw: as it stands in the file, from byte `column` (at least 1) of its first line."""
    return "(" + " " * (column - 1) + raw + "\n)"
