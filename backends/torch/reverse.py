"""One reverse pass, watched: where cotangents stop being finite, what is drawn anew, what was written over.

Runs inside the interpreter of the torch backend: Python >= 3.9, torch.
"""

import contextlib
import types

import torch
from torch.overrides import TorchFunctionMode

from . import tape, trees

SELECTS = ("Where", "Maximum", "Minimum", "Clamp", "MaskedFill", "Relu", "Threshold", "IndexPut", "MaskedScatter")
PARTS = (
    "Index",
    "MaskedSelect",
    "Gather",
    "Slice",
    "Select",
    "Take",
    "Narrow",
)  # take some entries, and leave out the others
SELECTS_TRIED = 8


class Birth(types.SimpleNamespace):
    """event: whose op; zero: the cotangent arriving at the entries in question is 0; input, cotangent, result: at the first."""


def graph_of(values):
    """Every node of autograd's graph behind some values."""
    found, waiting = {}, [value.grad_fn for value in values]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found[node] = True
            waiting.extend(after for after, _ in node.next_functions)
    return list(found)


class Watched:
    """Hooks on every node of a graph. leak: the event of a select whose unselected sides get 1 instead of 0; mend: births give 0.

    owners: node -> event. After the pass: births, and selects, the events that sent zeros to an unselected side.
    """

    def __init__(self, value, owners, leak=None, mend=lambda birth: True):
        self.owners, self.leak, self.mend = owners, leak, mend
        self.births, self.selects = [], []
        self.handles = [self.hook(node) for node in graph_of([value]) if type(node).__name__ != "AccumulateGrad"]

    def hook(self, node):
        return node.register_hook(lambda leaving, arriving: self.seen(node, leaving, arriving))

    def seen(self, node, leaving, arriving):
        given = [c for c in arriving if c is not None]
        after = list(leaving)
        for k, cotangent in enumerate(leaving):
            if cotangent is None or not cotangent.is_floating_point():
                continue
            if node.name().startswith(SELECTS + PARTS):
                after[k] = self.other_side(node, given, cotangent)
            if all(bool(torch.isfinite(c).all()) for c in given) and not bool(torch.isfinite(cotangent).all()):
                after[k] = self.born(node, given, cotangent)
        return tuple(after)

    def other_side(self, node, arriving, leaving):
        """What a select hands to one side; with the leak, something also where the other side was taken."""
        same = [c for c in arriving if c.shape == leaving.shape]
        if node.name().startswith(PARTS) and not node.name().startswith(SELECTS):
            left_out = (leaving == 0) & any(bool((c != 0).any()) for c in arriving)
        elif same:
            left_out = (leaving == 0) & (same[0] != 0)
        else:
            return leaving
        event = self.owners.get(node)
        if event is None or not bool(left_out.any()):
            return leaving
        if all(event.node != select.node for select in self.selects):
            self.selects.append(event)
        if self.leak is not None and event.node == self.leak.node:
            return torch.where(left_out, torch.ones_like(leaving), leaving)
        return leaving

    def born(self, node, arriving, cotangent):
        bad = ~torch.isfinite(cotangent)
        same = [c for c in arriving if c.shape == cotangent.shape]
        there = same[0][bad] if same else torch.cat([c.reshape(-1) for c in arriving])
        event = self.owners.get(node)
        birth = Birth(
            event=event,
            node=node,
            zero=not bool(there.any()),
            input=value_at(event, bad),
            cotangent=float(there[0]) if there.numel() else 0.0,
            result=float(cotangent[bad][0]),
        )
        self.births.append(birth)
        return torch.where(bad, torch.zeros_like(cotangent), cotangent) if self.mend(birth) else cotangent

    def remove(self):
        for handle in self.handles:
            handle.remove()


def value_at(event, bad):
    """The value of the op's input at the first spoilt entry; NaN where no input has that shape."""
    same = [v for v in event.inputs if v.shape == bad.shape and v.is_floating_point()] if event is not None else []
    return float(same[0][bad][0]) if same else float("nan")


def births(value, recorder, number_of):
    """Ops whose reverse rule makes a finite cotangent not finite; and whether a select's other side made it 0."""
    plain = passed(value, recorder.graph)
    zeros = {id(b.node) for b in plain.births if b.zero}
    blamed = {}
    for select in (
        plain.selects[:SELECTS_TRIED] if zeros else ()
    ):  # something nonzero on its other side: does it arrive there?
        for birth in passed(value, recorder.graph, leak=select).births:
            if id(birth.node) in zeros and not birth.zero:
                blamed.setdefault(id(birth.node), select)
    return [
        {
            "node": number_of(birth.event),
            "step": birth.event.step if recorder.nodes[birth.event.node]["steps"] > 1 else None,
            "where": "backward",
            "zero_cotangent": birth.zero,
            "select": number_of(blamed[id(birth.node)]) if id(birth.node) in blamed else None,
            "input": birth.input,
            "cotangent": birth.cotangent,
            "result": birth.result,
        }
        for birth in plain.births
        if birth.event is not None
    ]


def passed(value, owners, leak=None):
    watched = Watched(value, owners, leak)
    try:
        value.backward(retain_graph=True)  # and not grad, which a reentrant checkpoint refuses
    finally:
        watched.remove()
    return watched


def mended(value):
    """Watch a value's graph: what an unselected side's zero is multiplied to counts as 0."""
    Watched(value, {}, mend=lambda birth: birth.zero)


class Kept:
    """What the forward pass had, kept for the reverse pass: saved values as they were, and the states that draws were made from.

    saved: (event, the saved tensor, a copy of it); redrawn: (event of the forward pass, whether it is drawn from the same state).
    """

    def __init__(self, recorder):
        self.recorder, self.saved, self.redrawn = recorder, [], []

    def hooks(self):
        """Saved values are copied, so that what is written over later does no harm."""
        return torch.autograd.graph.saved_tensors_hooks(self.pack, lambda copy: copy)

    def pack(self, tensor):
        with torch._C.DisableTorchFunction():
            copy = tensor.detach().clone()
            if self.recorder.current is not None:
                self.saved.append((self.recorder.current, tensor.detach(), copy))
        return copy

    def redrawing(self, value):
        """The reverse pass of a value draws what the forward pass drew at the same place."""
        return self.reverse_pass(value, restore=True)

    def listening(self, value):
        """The reverse pass of a value draws as it does, and is looked at."""
        return self.reverse_pass(value, restore=False)

    @contextlib.contextmanager
    def reverse_pass(self, value, restore):
        handles = []
        for node in graph_of([value]) if value.requires_grad else ():
            event = self.recorder.graph.get(node)
            if event is not None and event.random is not None:
                handles += self.around(node, event, restore)
        try:
            with Redrawing(self, restore):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def around(self, node, event, restore):
        """Hooks before and after the reverse rule of an op that drew: rules of a user's own may draw again."""
        states = []

        def before(arriving):
            states.append(torch.get_rng_state())
            if restore:
                torch.set_rng_state(event.random)

        def after(leaving, arriving):
            if restore:
                torch.set_rng_state(states.pop())
            elif not torch.equal(states[-1], torch.get_rng_state()):
                self.redrawn.append((event, torch.equal(states.pop(), event.random)))

        return [node.register_prehook(before), node.register_hook(after)]

    def discrepancies(self):
        """(kind, event, event that wrote or None): "overwritten" saved values and draws that were made "redrawn"."""
        for event, tensor, copy in self.saved:
            if not torch.equal(tensor, copy) and event.node is not None:
                writers = [w for pointer, w in self.recorder.writes if pointer == tensor.untyped_storage().data_ptr()]
                yield "overwritten", event, writers[-1] if writers else None
        for event, same in self.redrawn:
            if not same:
                yield "redrawn", event, None


class Redrawing(TorchFunctionMode):
    """Calls made during a reverse pass that draw, matched with those of the forward pass that were made on the same line."""

    def __init__(self, kept, restore):
        super().__init__()
        self.kept, self.restore, self.done = kept, restore, set()
        recorder = kept.recorder
        self.drawing = []
        for event in recorder.events:
            if event.random is not None:
                node = recorder.nodes[event.node]
                self.drawing.append((event, (node["file"], node["line"], node["column"])))

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        _, place, _ = self.kept.recorder.places.of_call(tape.name_of(func))
        name = tape.name_of(func)
        like = [(e, there) for e, there in self.drawing if e.name == name and id(e) not in self.done]
        waiting = [
            e for e, there in like if there == place or not place[0]
        ]  # no line of the user's: a module run again
        if not waiting:
            return func(*args, **kwargs)
        event = self.chosen(waiting, args)
        self.done.add(id(event))
        self.kept.redrawn.append((event, torch.equal(torch.get_rng_state(), event.random)))
        with tape.drawn_from(event.random if self.restore else None):
            return func(*args, **kwargs)  # a recomputation may end in here, by an exception

    @staticmethod
    def chosen(waiting, args):
        """The one of the same inputs, or else the last: recomputation goes backwards."""
        given = [t.detach() for t in trees.tensors_in(args)]
        same = [e for e in waiting if len(e.inputs) == len(given) and all(map(torch.equal, e.inputs, given))]
        return (same or waiting)[-1]
