"""Where _worker/symbolic finds what it uses of PyTensor (see its docstring).

Runs inside a backend's interpreter: Python >= 3.11, PyTensor 3. Imported once PyTensor's settings are made.
"""

import dataclasses
import unittest.mock
import warnings

import numpy as np
import pytensor as module
import pytensor.tensor as tensor
from pytensor import config, function, grad
from pytensor.compile.sharedvalue import collect_new_shareds
from pytensor.gradient import DisconnectedInputError, DisconnectedType, NullType
from pytensor.gradient import pushforward as forward_mode
from pytensor.graph.basic import Constant, equal_computations
from pytensor.graph.replace import clone_replace as clone
from pytensor.graph.traversal import ancestors, graph_inputs
from pytensor.scan.basic import get_updates_and_outputs
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.random.variable import shared_rng

NAME, GROUP, PYTHON_LINKER = "PyTensor", "pytensor", "vm"
DISCONNECTED = "disconnected"  # what `grad` is asked for to return what has no path as a type

__all__ = [
    "DISCONNECTED", "GROUP", "NAME", "PYTHON_LINKER", "Constant", "DisconnectedInputError", "DisconnectedType",
    "NullType", "ancestors", "clone", "config", "draw", "equal_computations", "function", "generator", "grad",
    "graph_inputs", "like", "module", "pushforward", "scan", "scan_op", "step_of", "tensor", "tensor_type",
]  # fmt: skip


def scan(**arguments):
    """With return_updates, which is deprecated: without, a scan whose generators are updated by a dict is refused."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Scan return signature will change", DeprecationWarning)
        return module.scan(**{**arguments, "return_list": True, "return_updates": True})[0]


def scan_op(op, inner_inputs, inner_outputs, truncate_gradient):
    """A scan like this one, with another step, which may have further non-sequences."""
    further = len(inner_inputs) - len(op.inner_inputs)
    return type(op)(
        inner_inputs,
        inner_outputs,
        dataclasses.replace(op.info, n_non_seqs=op.info.n_non_seqs + further),
        mode=op.mode,
        truncate_gradient=truncate_gradient,
        name=op.name,
        allow_gc=op.allow_gc,
        strict=op.strict,
    )


def step_of(fn, arguments, fixed):
    """As scan calls its step: the generators that are made within the step are updated at every step, others only if told."""
    with collect_new_shareds() as made:
        returned = fn(*arguments, *fixed)
    condition, outputs, updates = get_updates_and_outputs(returned)
    for variable in made:
        if variable.default_update is not None:
            updates.setdefault(variable, variable.default_update)
    return condition, outputs, updates


def pushforward(ends, wrt, tangents):
    """By the ops' own rules, not by PyTensor's default, which is made of the reverse rules that are to be judged."""
    with unittest.mock.patch.object(Blockwise, "pushforward", of_one_matrix):
        return forward_mode(ends, wrt, tangents, disconnected_outputs="ignore", use_op_pushforward=True)


def of_one_matrix(blockwise, inputs, outputs, tangents):
    """The core op's rule where nothing is batched: `x @ y` of matrices is a Blockwise, which has no rule, of a Dot that has."""
    if blockwise.batch_ndim(outputs[0].owner):
        raise NotImplementedError(f"pushforward not implemented for {blockwise}")
    return blockwise.core_op.pushforward(inputs, outputs, tangents)


def tensor_type(dtype, flags):
    return tensor.TensorType(dtype, shape=[1 if flag else None for flag in flags])


def like(value, reference):
    """The value in the reference's type, whose static shape scan demands of a carry; no node is added if they agree."""
    return reference.type.filter_variable(value)


def generator(seed):
    return np.random.SeedSequence(seed)


def draw(seeds, kind, shape):
    """From a generator that is made in the step, so that scan updates it."""
    rng = shared_rng(seed=seeds.spawn(1)[0])
    rng.default_update, value = getattr(rng, kind)(size=shape)
    return value
