"""torch's scan operator: of portable steps as it is, of native ones through its own front end.

Runs inside the interpreter of the torch backend: Python >= 3.9, torch.
"""

import importlib
import warnings

import torch

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


def scanned(step, carry, inputs, length):
    """(last carry, stacked outputs) of step(carry, row) -> (carry, output): trees of tensors, as a user would call it."""
    rows = (torch.arange(length), inputs)

    def body(before, row):
        after, output = step(before, row[1])
        return trees.mapped(copied, after), trees.mapped(copied, output)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what its compiler does on the way
        return module.scan(body, trees.mapped(torch.as_tensor, carry), trees.mapped(torch.as_tensor, rows))


def copied(leaf):
    """The operator refuses a tensor that it gave itself, or that comes twice."""
    return torch.as_tensor(leaf).clone()
