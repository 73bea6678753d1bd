"""torch's scan operator: of portable steps as it is, of native ones through its own front end.

Runs inside the interpreter of the torch backend: Python >= 3.9, torch.
"""

import contextlib
import copy
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


class Operator:
    """torch's scan operator for the bodies of one model. They are the same but for the values that they are given, so that the
    derivative is traced once: torch would do that at every call.

    The operator itself is called. Its front end does the same, but first has the body compiled, which takes seconds: that finds
    the tensors that a body closes over, and here all of them are given.
    """

    def __init__(self):
        self.graphs = {}
        self.told = None  # what the body said of its outputs when it was run

    def __call__(self, body, carry, sequences, fixed, length):
        """(last carry, stacked outputs, what the body told): dicts of tensors.

        body(carry, row of the sequences, fixed) -> (carry, outputs, anything): dicts of tensors. The operator wants at least one
        carry and one sequence, no tensor twice and none that it gave itself; its reverse rule wants no integers, which therefore
        travel as float64.
        """
        kinds = {name: value.dtype for name, value in {**carry, **sequences, **fixed}.items()}

        def back(names, values):
            return {name: value.to(kinds[name]) for name, value in zip(names, values)}

        def flat(*given):
            before, rest = given[1 : len(carry) + 1], given[len(carry) + 2 :]
            row, kept = rest[: len(sequences)], rest[len(sequences) :]
            after, outputs, told = body(back(carry, before), back(sequences, row), back(fixed, kept))
            self.told = {name: value.dtype for name, value in outputs.items()}, told
            return tuple(as_float(v).clone() for v in (given[0], *(after[name] for name in carry), *outputs.values()))

        first = torch.zeros((), dtype=torch.get_default_dtype()), *map(as_float, carry.values())
        over_time = torch.arange(length, dtype=torch.float64), *map(as_float, sequences.values())
        with self.traced_once(flat):
            found = module.scan_op(flat, first, over_time, tuple(map(as_float, fixed.values())))
        dtypes, told = self.told
        stacked = {name: value.to(dtypes[name]) for name, value in zip(dtypes, found[len(carry) + 1 :])}
        return back(carry, found[1 : len(carry) + 1]), stacked, told

    @contextlib.contextmanager
    def traced_once(self, body):
        """Within: the derivative of this body is taken from an earlier call, if there was one of inputs alike."""
        partitioner = module.HopGraphMinCutPartitioner
        plain = partitioner.create_partitioned_graph

        def kept(function, inputs, **options):
            if function is not body:
                return plain(function, inputs, **options)
            alike = tuple((tuple(x.shape), x.dtype, x.requires_grad) for x in inputs)
            if alike not in self.graphs:
                self.graphs[alike] = plain(function, inputs, **options)
            return copy.deepcopy(self.graphs[alike])  # its user changes it

        partitioner.create_partitioned_graph = staticmethod(kept)
        try:
            yield
        finally:
            partitioner.create_partitioned_graph = staticmethod(plain)


def as_float(value):
    return value if value.is_floating_point() else value.to(torch.float64)


def scanned(operator, step, params, tensors, carry, inputs, length):
    """(last carry, stacked outputs) of step(params, carry, row) -> (carry, output), all of them trees of tensors.

    tensors: name -> parameter, wherever it stands in `params`: the operator has to be given each. It refuses other tensors that a
    step closes over, and a step that looks at values or writes in place.
    """

    def body(before, row, kept):
        with substituted(params, tensors, kept) as own:
            after, output = step(own, with_leaves(carry, before), with_leaves(inputs, row))
        return flat(after), flat(output), trees.mapped(lambda leaf: "", output)

    last, stacked, shape = operator(body, flat(carry), flat(inputs), dict(tensors), length)
    return with_leaves(carry, last), with_leaves(shape, stacked)


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
