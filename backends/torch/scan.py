"""torch's scan operator: of portable steps as it is, of native ones through its own front end.

Runs inside the interpreter of the torch backend: Python >= 3.9, torch.
"""

import contextlib
import importlib

import torch
from torch.nn.utils.stateless import _reparametrize_module

from . import trees

try:
    module = importlib.import_module("torch._higher_order_ops.scan")  # the package has a function of this name
    missing = "" if hasattr(module, "ScanAutogradOp") else "whose scan operator has no reverse rule"
except ImportError:
    module, missing = None, "which has no scan operator"


def unavailable():
    """Why this version of torch cannot scan, or ""."""
    return f"torch-scan needs a newer torch than {torch.__version__}, {missing}" if missing else ""


def operated(body, carry, sequences, fixed, length):
    """(last carry, stacked outputs), dicts, of body(carry, row of the sequences, fixed) -> (carry, outputs): dicts of tensors.

    The operator itself is called. Its front end does the same, but first has the body compiled, which takes seconds for each:
    that finds the tensors that a body closes over, and here all of them are given. The operator wants at least one carry and one
    sequence, no tensor twice, and none that it gave itself.
    """
    counter = torch.arange(length)
    names = []

    def flat(*given):
        parts = list(given)
        before = dict(zip(carry, parts[1:]))
        row = dict(zip(sequences, parts[len(carry) + 2 :]))
        kept = dict(zip(fixed, parts[len(carry) + len(sequences) + 2 :]))
        after, outputs = body(before, row, kept)
        names[:] = outputs
        together = [given[0], *(after[name] for name in carry), *outputs.values()]
        return tuple(value.clone() for value in together)

    nothing = torch.zeros((), dtype=torch.get_default_dtype())
    found = module.scan_op(
        flat, (nothing, *carry.values()), (counter, *sequences.values()), tuple(t for t in fixed.values())
    )
    last, stacked = found[1 : len(carry) + 1], found[len(carry) + 1 :]
    return dict(zip(carry, last)), dict(zip(names, stacked))


def scanned(step, params, tensors, carry, inputs, length):
    """(last carry, stacked outputs) of step(params, carry, row) -> (carry, output), all of them trees of tensors.

    tensors: name -> parameter, wherever it stands in `params`: the operator has to be given each. It refuses other tensors that a
    step closes over, and a step that looks at values or writes in place.
    """
    outputs = []

    def body(before, row, kept):
        with substituted(params, tensors, kept) as own:
            after, output = step(own, with_leaves(carry, before), with_leaves(inputs, row))
        outputs[:] = [output]
        return flat(after), flat(output)

    last, stacked = operated(body, flat(carry), flat(inputs), dict(tensors), length)
    return with_leaves(carry, last), with_leaves(outputs[0], stacked)


def flat(tree):
    return {path: torch.as_tensor(leaf) for path, leaf in trees.leaves(tree)}


def with_leaves(tree, found):
    """The tree with other leaves, by their paths."""
    given = iter([found[path] for path, _ in trees.leaves(tree)])
    return trees.mapped(lambda leaf: next(given), tree)


@contextlib.contextmanager
def substituted(params, tensors, kept):
    """The parameters with other tensors in the place of their own, also inside of modules."""
    by_id = {id(tensor): kept[name] for name, tensor in tensors.items()}
    with contextlib.ExitStack() as stack:
        for module in trees.modules(params):
            own = {name: by_id[id(tensor)] for name, tensor in module.named_parameters() if id(tensor) in by_id}
            stack.enter_context(_reparametrize_module(module, own))
        yield trees.mapped(lambda leaf: by_id.get(id(leaf), leaf), params)
