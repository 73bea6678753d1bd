"""Where _worker/symbolic finds what it uses of Theano (see its docstring).

Runs inside a backend's interpreter: Python 3.9 to 3.11, Theano-PyMC. Imported once Theano's settings are made.
"""

import theano as module
import theano.tensor as tensor
from theano import config, function, grad
from theano.gradient import DisconnectedInputError, DisconnectedType, NullType, Rop
from theano.graph.basic import Constant, ancestors, equal_computations, graph_inputs
from theano.scan.utils import clone, get_updates_and_outputs
from theano.tensor.random.utils import RandomStream

NAME, GROUP, PYTHON_LINKER = "Theano", "theano", "py"
DISCONNECTED = "Disconnected"  # what `grad` is asked for to return what has no path as a type

__all__ = [
    "DISCONNECTED", "GROUP", "NAME", "PYTHON_LINKER", "Constant", "DisconnectedInputError", "DisconnectedType",
    "NullType", "ancestors", "clone", "config", "draw", "equal_computations", "function", "generator", "grad",
    "graph_inputs", "like", "module", "pushforward", "scan", "scan_op", "step_of", "tensor", "tensor_type",
]  # fmt: skip


def scan(**arguments):
    return module.scan(**{**arguments, "return_list": True})[0]


def scan_op(op, inner_inputs, inner_outputs, truncate_gradient):
    """A scan like this one, with another step, which may have further non-sequences."""
    return type(op)(inner_inputs, inner_outputs, {**op.info, "truncate_gradient": truncate_gradient})


def step_of(fn, arguments, fixed):
    condition, outputs, updates = get_updates_and_outputs(fn(*arguments, *fixed))
    outputs, updates = list(outputs), dict(updates)
    for variable in graph_inputs(outputs, blockers=fixed):  # what draws a non-sequence runs once, outside
        if getattr(variable, "default_update", None) is not None:
            updates.setdefault(variable, variable.default_update)
    return condition, outputs, updates


def pushforward(ends, wrt, tangents):
    return Rop(ends, wrt, tangents, disconnected_outputs="ignore")


def tensor_type(dtype, flags):
    return tensor.TensorType(dtype, flags)


def like(value, reference):
    """The value with the reference's broadcastable flags, which scan demands of a carry; no node is added if they agree."""
    value, flags = tensor.as_tensor_variable(value), reference.broadcastable
    return value if value.broadcastable == flags else tensor.patternbroadcast(value, flags)


def generator(seed):
    return RandomStream(seed=seed)


def draw(stream, kind, shape):
    return {"normal": stream.normal, "uniform": stream.uniform}[kind](size=shape)
