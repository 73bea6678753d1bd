"""Draws whose distribution has a parameter that moves with what is differentiated: no gradient passes through the sampler.

Runs inside a backend's interpreter: Python >= 3.9. Theano has two kinds of generators. `RandomStream` draws by one op that takes
the parameters; `MRG_RandomStream` makes uniform bits by one op and the distribution of ordinary ones, with every parameter behind
an `undefined_grad` of its own, made by the same call.
"""

import ast
import inspect
import sys

from . import redraw
from .tape import is_float, lineage

OTHERS = 3  # the first inputs of a RandomVariable: generator, size, dtype


def called(ops, node, usual):
    """The name by which the user called the sampler; usual: the op's, where that is not known."""
    kind = type(node.op)
    if "RandomVariable" in lineage(node.op):  # the op's own name is not always the one it is called by
        module = vars(sys.modules[kind.__module__])
        return next((n for n, thing in module.items() if type(thing) is kind), node.op.name)
    streams = [c for n, c in vars(sys.modules[kind.__module__]).items() if n.endswith("RandomStream")]
    names = {method for stream in streams for method in vars(stream)}
    on_line = [n for n in calls_at(*ops.place(node)) if n in names]
    return on_line[0] if len(on_line) == 1 else usual


def calls_at(file, line):
    """The names of the methods and functions that are called on a line; [] where that cannot be read."""
    try:
        with open(file, encoding="utf-8") as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return []
    calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call) and n.lineno <= line <= n.end_lineno]
    return sorted({getattr(f, "attr", getattr(f, "id", "")) for f in calls})


def of(ops, body, node):
    """{"sampled": {input of the case: parameters of the distribution that it moves, by name where they have one}, "reaches": the
    objectives that are made of the draw, "discrete": whether what is drawn is known to be}; if the steps of a loop share the
    draw, also "shared" and "steps", how many.
    """
    sampled = {}
    for wrt in ops.problem.wrt:
        moved = ops.moved_by(wrt).get(body, set())
        if names := [parameter for parameter, v in parameters(ops, body, node) if v in moved]:
            sampled[wrt] = list(dict.fromkeys(names))
    reached = [o for o, cost in ops.costs.items() if reaches(ops, body, node, cost)]
    told = {"sampled": sampled, "reaches": reached, "discrete": is_discrete(ops, body, node)}
    steps = redraw.shared_steps(body, node)
    return {**told, "shared": True, "steps": steps} if steps else told


def is_discrete(ops, body, node):
    """Whether integers are drawn, or the random bits are only compared with what is given."""
    if not is_float(node.outputs[-1]):
        return True
    place = ops.place(node)
    alike = [n for n in body.order if ops.place(n) == place]
    return any(getattr(n.outputs[0].type, "dtype", "") == "bool" and any(map(is_float, n.inputs)) for n in alike)


def parameters(ops, body, node):
    """[(name or "", variable)] of the distribution's parameters."""
    if "RandomVariable" in lineage(node.op):
        given = node.inputs[OTHERS:]
        return list(zip(names_of(node.op, len(given)), given))
    place = ops.place(node)
    hidden = [n for n in body.order if "UndefinedGrad" in lineage(n.op) and ops.place(n) == place]
    return [("", n.inputs[0]) for n in hidden]


def names_of(op, count):
    """The names of a RandomVariable's parameters: as its callers give them, in the order of the function that samples."""
    called, sampled = map(positional, (type(op).__call__, type(op).rng_fn))
    if set(called) == set(sampled) or len(called) != count:
        called = sampled
    return called if len(called) == count else [""] * count


def positional(function):
    """The names of a function's positional arguments, those that are no parameters of a distribution apart."""
    given = inspect.signature(function).parameters.values()
    return [p.name for p in given if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in ("self", "cls", "rng", "size")]


def reaches(ops, body, node, cost):
    """Whether an objective is made of what a node of some body computes."""
    while body is not ops.body:
        body, node = body.around, body.node
    seen, waiting = set(), [cost]
    while waiting:
        owner = waiting.pop().owner
        if owner is node:
            return True
        if owner is not None and owner not in seen:
            seen.add(owner)
            waiting.extend(owner.inputs)
    return False
