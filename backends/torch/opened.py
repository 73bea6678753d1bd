"""An evaluation whose cuts let gradients through, and whose autograd.Functions are derived from their own forward.

Runs inside the interpreter of the torch backend: Python >= 3.9, torch.
"""

import types

import torch
from torch.overrides import TorchFunctionMode

from . import tape, trees


class Opened(TorchFunctionMode):
    """stops: whether what cuts the graph is the identity; inside: keys (see tape.Places) of calls of autograd.Functions that are
    entered instead of applied; watched: keys of calls whose nodes in autograd's graph are noted in `passed`.
    """

    def __init__(self, places, stops, inside=(), watched=()):
        super().__init__()
        self.places, self.stops, self.inside, self.watched, self.passed = places, stops, inside, watched, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        through = THROUGH.get(tape.name_of(func)) if self.stops and not is_setter(func) else None
        found = through(func, args, kwargs) if through is not None else None
        result = func(*args, **kwargs) if found is None else found[0]
        if self.watched:
            key = self.places.of_call(tape.name_of(func))[0]
            if key in self.watched:
                self.passed += [(key, t.grad_fn) for t in trees.tensors_in(result) if t.grad_fn is not None]
        return result

    def applied(self, function, args):
        if self.inside and self.places.of_call(function.__name__)[0] in self.inside:
            return derived(function, args)
        return tape.plain_apply(function, *args)


def is_setter(func):
    return getattr(func, "__name__", "") == "__set__"


def derived(function, args):
    """The function's own forward, with the rules of the ops in it."""
    if function.setup_context is not torch.autograd.Function.setup_context:
        return function.forward(*args)
    return function.forward(Context(args), *args)


class Context(types.SimpleNamespace):
    """What a forward may ask of its context, without a backward pass to come."""

    def __init__(self, args):
        super().__init__(needs_input_grad=tuple(isinstance(a, torch.Tensor) and a.requires_grad for a in args))

    def save_for_backward(self, *tensors):
        self.saved_tensors = tensors

    save_for_forward = save_for_backward

    def mark_dirty(self, *tensors):
        pass

    mark_non_differentiable = mark_dirty

    def set_materialize_grads(self, value):
        pass


# --- each cut as the identity: (func, args, kwargs) -> (result,), or None to leave it as it is -------------------------


def same(func, args, kwargs):
    """x.detach(), x.data: another tensor of the same values."""
    return (args[0].view_as(args[0]),) if args[0].requires_grad else None


def one_value(func, args, kwargs):
    """x.item(): the scalar tensor itself."""
    return (args[0].reshape(()),) if args[0].requires_grad else None


def listed(func, args, kwargs):
    """x.tolist(): the same nesting, of scalar tensors."""
    return (nested(args[0]),) if args[0].requires_grad else None


def nested(tensor):
    return [nested(part) for part in tensor] if tensor.ndim else tensor


def retensored(func, args, kwargs):
    """torch.tensor(values), torch.as_tensor(values), x.new_tensor(values): stacked."""
    values = args[1] if tape.name_of(func) == "new_tensor" else args[0] if args else kwargs.get("data")
    if not any(t.requires_grad for t in trees.tensors_in(values)):
        return None
    plain = func(*args, **kwargs)
    return (stacked(values).to(plain),)


def stacked(values):
    if isinstance(values, (list, tuple)):
        return torch.stack([stacked(part) for part in values])
    return values.view_as(values) if isinstance(values, torch.Tensor) else torch.tensor(values)


def reparametrised(func, args, kwargs):
    """torch.normal(mean, std): the same draw, as mean + std * noise."""
    names = dict(zip(("mean", "std"), args))
    mean, std = kwargs.get("mean", names.get("mean", 0.0)), kwargs.get("std", names.get("std", 1.0))
    if not any(isinstance(part, torch.Tensor) and part.requires_grad for part in (mean, std)):
        return None
    drawn = func(*args, **kwargs).detach()
    noise = (drawn - mean) / std
    return (mean + std * noise.detach(),)


def left_enabled(func, args, kwargs):
    """torch.no_grad(): not entered."""
    return (None,) if not args[0] else None


THROUGH = {
    "detach": same,
    "detach_": lambda func, args, kwargs: (args[0],),
    "data": same,
    "item": one_value,
    "tolist": listed,
    "tensor": retensored,
    "as_tensor": retensored,
    "new_tensor": retensored,
    "normal": reparametrised,
    "_set_grad_enabled": left_enabled,
}
