"""What the tensors of a recorded run derive from: stepwise ops, stops. Tells a stop that is meant from one that cuts.

Runs inside the interpreter of the torch backend: Python >= 3.9, torch.

A stop is meant where what it stops is stepwise (a straight-through estimator: the derivative that is cut is zero), or where it
is a target: a value that is held against one that is differentiated, by subtraction or by a loss of two arguments, and that does
not feed the loop that it comes from.
"""

import collections

from . import trees

STEPWISE = ("round", "floor", "ceil", "sign", "trunc", "argmax", "argmin", "bernoulli", "multinomial", "one_hot")
SHAPES = ("view", "reshape", "view_as", "expand", "expand_as", "unsqueeze", "squeeze", "transpose", "permute", "T", "t", "clone",
          "contiguous", "getitem", "to", "flatten", "stack", "cat", "detach", "broadcast_to")  # fmt: skip
HELD_AGAINST = ("sub", "rsub", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")

# depends: on a tensor that a gradient is asked for, though it may have none. stepped: through an op that moves in steps.
# behind: keys of the stops that it derives from. fresh: those of them that nothing but its shape has changed since.
Past = collections.namedtuple("Past", "depends stepped behind fresh")
NOTHING = Past(False, False, frozenset(), frozenset())


class Pasts:
    """The past of every tensor of a run. They are kept alive, so that an id stays its own."""

    def __init__(self):
        self.known = {}

    def of(self, tensor):
        past = self.known.get(id(tensor), (None, NOTHING))[1]
        return past._replace(depends=past.depends or tensor.requires_grad)

    def passed(self, name, inputs, returned, grad_enabled):
        """Note the past of what a call returned, and give it."""
        pasts = [self.of(t) for t in inputs]
        results = trees.tensors_in(returned)
        depends = any(p.depends for p in pasts)
        to_integers = bool(results) and not any(t.is_floating_point() for t in results)
        past = Past(
            depends,
            any(p.stepped for p in pasts) or (depends and (name in STEPWISE or to_integers)),
            frozenset().union(*(p.behind for p in pasts)),
            # what is computed under no_grad is still inside of the stop
            frozenset().union(*(p.fresh for p in pasts)) if name in SHAPES or not grad_enabled else frozenset(),
        )
        for tensor in results:
            self.known[id(tensor)] = tensor, past
        return past

    def note(self, event, name, node, inputs, returned, cut):
        """The same; and with the node of a stop what it stops, with that of a target that it is one."""
        before = [self.of(t) for t in inputs]
        past = self.passed(name, inputs, returned, event.grad_enabled)
        if cut:
            key = node["key"]
            inside = frozenset() if event.grad_enabled else past.fresh  # under no_grad: one stop, of several parts
            node["stops"] = (*node.get("stops", ()), (past.behind - inside, past.stepped))
            fresh = inside | {key}
            for tensor in trees.tensors_in(returned):
                self.known[id(tensor)] = tensor, past._replace(behind=past.behind | {key}, fresh=fresh)
        if name in HELD_AGAINST and len(inputs) == 2:
            for k in (0, 1):
                if inputs[1 - k].requires_grad:
                    self.targets |= before[k].fresh

    targets = frozenset()

    def meant(self, node):
        """Why a stop is meant: "stepwise", "target", or "" if nothing shows that it is."""
        stops = node.get("stops", ())
        if not stops:
            return ""
        if all(stepped for _, stepped in stops):
            return "stepwise"
        return "target" if node["key"] in self.targets and not self.recurrent(node) else ""

    @staticmethod
    def recurrent(node):
        """Whether what a stop stops derives from its own value a step before."""
        return any(node["key"] in behind for behind, _ in node.get("stops", ()))
