"""One evaluation recorded call by call: which ops run, on which lines, with which values, how often.

Runs inside the interpreter of the torch backend: Python >= 3.9, torch. What a user calls is one op: torch.sqrt, a method or an
operator of a tensor, a function of torch.nn.functional, or an autograd.Function, which has a reverse rule of its own.
"""

import contextlib
import functools
import inspect
import os
import sys
import sysconfig

import numpy as np
import torch
from torch.overrides import TorchFunctionMode, resolve_name

from . import lineage, trees

BYTES = 1 << 30  # what the inputs of all ops may take
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
PLUMBING = (
    ("_tensor.py",),
    ("_compile.py",),
    ("overrides.py",),
    ("_dynamo", "eval_frame.py"),
    ("nn", "modules", "module.py"),
)
BETWEEN = {
    os.path.join(TORCH, *parts) for parts in PLUMBING
}  # what stands between a call and the function that was called
STANDARD = sysconfig.get_paths()["stdlib"] + os.sep
WITHOUT_VALUES = (
    "_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "size",
    "stride",
    "dim",
)  # read shapes alone


class TooLarge(Exception):
    """The values of all ops would not fit."""


class Event:
    """One call: what it needs to be made again on other values.

    inputs: the tensors among its arguments, copied; moving: positions of those that gradients pass through. random: the state of
    the generator before it, if it draws. results: the values of its float results.
    """

    def __init__(self, name, call, arguments, inputs, moving):
        self.name, self.call, self.arguments, self.inputs, self.moving = name, call, arguments, inputs, moving
        self.node, self.step, self.random, self.results, self.grad_enabled = None, None, None, [], True
        self.is_kept = False

    def again(self, values):
        """The float results of the same call with these tensors, that gradients can pass through; in-place ones included."""
        own = [value.clone() for value in values]  # what it writes in place is its own
        before = [value._version for value in own]
        args, kwargs = filled(self.arguments, own)
        with drawn_from(self.random), torch.set_grad_enabled(True):
            returned = self.call(*args, **kwargs)
        written = [value for value, version in zip(own, before) if value._version != version]
        found = {id(t): t for t in [*trees.tensors_in(returned), *written]}
        return [t for t in found.values() if t.is_floating_point() and t.requires_grad]


@contextlib.contextmanager
def drawn_from(state):
    """The generator in a state; as before, after. None: as it is."""
    if state is None:
        yield
        return
    before = torch.get_rng_state()
    torch.set_rng_state(state)
    try:
        yield
    finally:
        torch.set_rng_state(before)


class Slot:
    """The place of a tensor among arguments."""

    def __init__(self, number):
        self.number = number


def emptied(tree, found):
    """The arguments with slots in the place of tensors, which are appended to `found`."""
    if isinstance(tree, torch.Tensor):
        found.append(tree)
        return Slot(len(found) - 1)
    if type(tree) in (list, tuple):
        return type(tree)(emptied(part, found) for part in tree)
    if type(tree) is dict:
        return {key: emptied(part, found) for key, part in tree.items()}
    return tree


def filled(tree, values):
    """The arguments with tensors in their slots."""
    if isinstance(tree, Slot):
        return values[tree.number]
    if type(tree) in (list, tuple):
        return type(tree)(filled(part, values) for part in tree)
    if type(tree) is dict:
        return {key: filled(part, values) for key, part in tree.items()}
    return tree


def holds_numbers(tree):
    """Whether what a call returned are float values outside of any graph: a Python float, an array, a list of them."""
    return any(
        isinstance(leaf, float) or (isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f")
        for _, leaf in trees.leaves(tree)
    )


class Recorder(TorchFunctionMode):
    """Records the calls made while it is active. folder: where the user's step is. values: whether inputs are kept. held: what
    cuts return instead, by `kept_as` (see `stopped`); None: what they do.

    nodes: dicts as backends/README.md has them, with `key`; graph: node of autograd's graph -> event; writes: (storage, event) of
    what is written in place; current: the event under way; stopped: what cuts returned.
    """

    def __init__(self, folder, values=True, held=None):
        super().__init__()
        self.places, self.values, self.held, self.stopped, self.run = Places(folder), values, held, {}, 0
        self.past = lineage.Pasts()
        self.nodes, self.numbers, self.events = [], {}, []
        self.graph, self.writes, self.copies = {}, [], {}
        self.current, self.bytes, self.counts = None, 0, {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self.called(func, args, kwargs or {}, name_of(func), "op", "")

    def applied(self, function, args):
        """A call of an autograd.Function, whose inside is not looked into."""
        file, line = rule_of(function)
        own = not is_library(file)
        kind = "custom" if own else "op"
        with torch._C.DisableTorchFunction():
            return self.called(
                lambda *a: plain_apply(function, *a), args, {}, function.__name__, kind, f"{file}:{line}" if own else ""
            )

    def called(self, func, args, kwargs, name, kind, defined):
        found = []
        arguments = emptied((list(args), kwargs), found)
        versions = [t._version if not t.is_inference() else 0 for t in found]
        active = [k for k, t in enumerate(found) if t.requires_grad and t.is_floating_point()]
        copies = [self.copied(t) for t in found] if active and self.values else []
        state, outer = torch.get_rng_state(), self.current
        event = Event(name, func, arguments, copies, active)
        event.grad_enabled = torch.is_grad_enabled()
        self.current = event
        try:
            returned = func(*args, **kwargs)
        finally:
            self.current = outer
        drew = not torch.equal(state, torch.get_rng_state())
        written = [t for t, v in zip(found, versions) if not t.is_inference() and t._version != v]
        results = [t for t in trees.tensors_in(returned) if t.is_floating_point()]
        results += [t for t in written if t.is_floating_point() and all(t is not r for r in results)]
        connected = [t for t in results if t.requires_grad and (not t.is_leaf or any(t is f for f in found))]
        cut = active and not connected and (results or holds_numbers(returned)) and not reads_no_values(name)
        if not (results or cut):
            self.past.passed(name, found, returned, event.grad_enabled)
            return returned
        event.random = state if drew else None
        event.results = [t.detach() for t in results]
        self.enter(event, name, "stop" if cut else "draw" if drew and not active else kind, defined, bool(active))
        if event.node is None:
            return returned
        if cut and not name.endswith("_"):
            returned = self.cut(event, returned)
        self.past.note(event, name, self.nodes[event.node], found, returned, bool(cut))
        for tensor in written:
            self.writes.append((tensor.untyped_storage().data_ptr(), event))
        self.note_graph(connected, event)
        return returned

    def enter(self, event, name, kind, defined, active):
        """Give an event its node, entered into the list at its first run, and its number among the node's runs."""
        key, (file, line, column), within = self.places.of_call(name)
        if not file and kind != "op":  # the tool's own looking at values
            return
        if key not in self.numbers:
            self.numbers[key] = len(self.nodes)
            self.nodes.append(
                {"file": file, "line": line, "column": column, "steps": 0, "kind": "", "why": "", "active": False,
                 "defined": defined, "key": key}
            )  # fmt: skip
        event.node = self.numbers[key]
        node = self.nodes[event.node]
        # what cuts at any step is a stop, though nothing arrives at the first
        if not node["kind"] or (active and node["kind"] not in (kind, "stop")):
            node["kind"], node["op"] = kind, shown_as(name, kind, within, event.grad_enabled)
        node["active"] |= active
        event.step = self.counts.get(event.node, 0)
        self.counts[event.node] = event.step + 1
        node["steps"] = max(node["steps"], event.step + 1)
        self.events.append(event)

    def cut(self, event, returned):
        """What a cut returns: remembered, or what it is held at."""
        place = self.run, self.nodes[event.node]["key"], event.step
        self.stopped[place] = trees.mapped(detached, returned)
        return returned if self.held is None else self.held.get(place, returned)

    def begin(self):
        """A further run: its calls are counted from 0 again."""
        self.counts, self.run = {}, self.run + 1

    def end(self, graph):
        """After a run: ops off the way to the objectives, whose graph this is, are not of interest."""
        on_the_way = {id(self.graph[node]) for node in graph if node in self.graph}
        ended, self.events = self.events, []
        for event in ended:
            kind = self.nodes[event.node]["kind"]
            if event.moving and kind in ("op", "custom") and id(event) not in on_the_way and not event.is_kept:
                event.moving = []
            event.is_kept = True
            self.events.append(event)
        for node in self.nodes:
            node["active"] = node["kind"] == "stop" and node["active"]
        for event in self.events:
            self.nodes[event.node]["active"] |= bool(event.moving)

    def copied(self, tensor):
        """The values of an input as they are now; one copy for all calls that read it unchanged."""
        version = tensor._version if not tensor.is_inference() else -1
        known = self.copies.get((id(tensor), version))
        if known is None:
            copy = tensor.detach().clone()
            self.bytes += copy.numel() * copy.element_size()
            if self.bytes > BYTES:
                raise TooLarge(f"the values of all ops take more than {BYTES >> 30} GB")
            known = self.copies[id(tensor), version] = tensor, copy  # kept alive, so that its id stays its own
        return known[1]

    def note_graph(self, connected, event):
        """The nodes of autograd's graph that a call has made are its own."""
        waiting = [t.grad_fn for t in connected if t.grad_fn is not None]
        while waiting:
            node = waiting.pop()
            if node in self.graph or type(node).__name__ == "AccumulateGrad":
                continue
            self.graph[node] = event
            waiting.extend(after for after, _ in node.next_functions if after is not None)


def shown_as(name, kind, within, grad_enabled):
    """An op as it is told. within: the function of the library that the user called; a stop goes by its name."""
    if kind == "stop" and within:
        return within
    if kind == "stop" and not grad_enabled:
        return f"{name} (under no_grad)"
    return f"{name} (in {within})" if within not in ("", name) else name


def detached(leaf):
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf


def reads_no_values(name):
    return name.endswith(WITHOUT_VALUES) or name in ("requires_grad_", "is_floating_point")


def name_of(func):
    """The op as users call it: sqrt, mul for `*`, data for `.data`."""
    name = getattr(func, "__name__", "") or "call"
    if name in ("__get__", "__set__", "__delete__"):
        name = (resolve_name(func) or name).split(".")[-2]
    if type(func).__name__ in ("OpOverload", "OpOverloadPacket"):
        return str(func)
    return name.strip("_") if name.startswith("__") else name


# --- autograd.Function ------------------------------------------------------------------------------------------------

APPLY = {torch.autograd.Function.apply.__func__.__code__}  # the frame that stands between a call and BASE's
BASE = torch.autograd.function._SingleLevelFunction  # Function.apply hands over to it, by whatever name it is called


def plain_apply(function, *args):
    return super(BASE, function).apply(*args)


@contextlib.contextmanager
def applications(handle):
    """handle(function, args) is called in the place of each application of an autograd.Function."""
    BASE.apply = classmethod(lambda function, *args: handle(function, args))
    try:
        yield
    finally:
        del BASE.apply


def rule_of(function):
    """(file, line) of the reverse rule of an autograd.Function; ("", 0) if that is not known."""
    rule = function.vjp if function.backward is torch.autograd.Function.backward else function.backward
    code = getattr(inspect.unwrap(rule), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code else ("", 0)


# --- source lines -----------------------------------------------------------------------------------------------------


class Places:
    """Where calls are made. folder: where the user's step is."""

    def __init__(self, folder):
        self.folder, self.known = folder, {}

    def of_call(self, name):
        """(key, (file, line, column), function of the library that the user called, or "") of the call under way.

        key: the same for all runs of one call in a loop, and different for calls by different ways.
        """
        frames, own, frame = [], False, sys._getframe(1)
        while frame is not None and not (
            own and frame.f_code.co_filename.startswith(HERE)
        ):  # who calls the user's code
            if not (frame.f_code.co_filename.startswith(HERE) or frame.f_code in APPLY):
                frames.append(frame)
                own = own or not is_library(frame.f_code.co_filename)
            frame = frame.f_back
        key = (name, *((f.f_code, position_of(f)) for f in frames if own))
        if key not in self.known:
            self.known[key] = self.looked_up(frames) if own else (("", 0, 0), "")
        return (key, *self.known[key])

    def looked_up(self, frames):
        own = [k for k, f in enumerate(frames) if os.path.dirname(os.path.abspath(f.f_code.co_filename)) == self.folder]
        others = [k for k, f in enumerate(frames) if not is_library(f.f_code.co_filename)]
        position = (own or others)[0]
        frame = frames[position]
        inner = [f for f in frames[:position] if f.f_code.co_filename not in BETWEEN]
        return (frame.f_code.co_filename, frame.f_lineno, column_of(frame)), called_in(inner[-1]) if inner else ""


@functools.cache
def positions(code):
    """(line, end, column, end) of every instruction; none before Python 3.11."""
    return list(code.co_positions()) if hasattr(code, "co_positions") else []


def position_of(frame):
    """Where in the text the call under way is. An instruction's number alone changes as the interpreter specialises it."""
    known = positions(frame.f_code)
    return known[frame.f_lasti // 2] if known else frame.f_lasti


def column_of(frame):
    """The column, from 1, of the call under way in a frame; 0 before Python 3.11."""
    known = positions(frame.f_code)
    column = known[frame.f_lasti // 2][2] if known else None
    return 0 if column is None else column + 1


def called_in(frame):
    """The function or module of the library that a frame runs."""
    name = frame.f_code.co_name
    if name == "forward" and isinstance(frame.f_locals.get("self"), torch.nn.Module):
        return type(frame.f_locals["self"]).__name__
    return name


@functools.cache
def is_library(file):
    standard = file.startswith(STANDARD) and "site-packages" not in file
    return not file or file.startswith((TORCH, HERE, "<")) or standard or "site-packages" in file
