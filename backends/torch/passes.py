"""One reverse pass, or what a forward-mode one left: gradients, or why there are none.

Runs inside the interpreter of the torch backend: Python >= 3.9, torch.
"""

import torch
from torch.autograd import forward_ad


def tangent_of(value):
    """The derivative that a dual tensor carries; 0 if it carries none."""
    tangent = forward_ad.unpack_dual(value).tangent
    return 0.0 if tangent is None else float(tangent)


def pulled_back(value, inputs, cotangent, retain_graph=False):
    """{input: (status, array or reason)} of one scalar, by a reverse pass that starts from the cotangent."""

    def grad(start):
        return torch.autograd.grad(value, list(inputs.values()), start, allow_unused=True, retain_graph=retain_graph)

    return taken(value, inputs, cotangent, grad)


def accumulated(value, inputs, cotangent):
    """The same by `backward`, which leaves gradients with the inputs; they have none before."""

    def backward(start):
        value.backward(start)
        return [tensor.grad for tensor in inputs.values()]

    return taken(value, inputs, cotangent, backward)


def watched(value, inputs, cotangent, accumulate=False):
    """The same by autograd's engine itself: torch.autograd.grad hides what it does from a mode that watches calls."""

    def run(start):
        leaves = list(inputs.values())
        given = () if accumulate else tuple(leaves)
        engine = torch.autograd.Variable._execution_engine
        found = engine.run_backward(
            (value,), (start,), False, False, given, allow_unreachable=True, accumulate_grad=accumulate
        )
        return [tensor.grad for tensor in leaves] if accumulate else found

    return taken(value, inputs, cotangent, run)


def needs_backward(answers):
    """Whether a reverse pass was refused by what only `backward` can pass, such as a reentrant checkpoint."""
    return any(status == "refused" and ".grad()" in reason for status, reason in answers.values())


def taken(value, inputs, cotangent, reverse):
    """What a reverse pass gives for each input, or why it gives nothing."""
    if not value.requires_grad:
        return dict.fromkeys(
            inputs, ("disconnected", "the objective does not require grad: nothing leads back from it")
        )
    try:
        found = reverse(torch.full_like(value, cotangent))
    except Exception as error:  # whatever a rule of the user's raises, or torch about the lack of one
        return dict.fromkeys(inputs, refusal(error))
    return {name: told(name, gradient, tensor) for (name, tensor), gradient in zip(inputs.items(), found)}


def told(name, gradient, tensor):
    """(status, array or reason). None means that nothing leads from the objective to the input, which zeros would hide."""
    if gradient is None:
        return "disconnected", f"autograd returned None: no path leads back to {name}"
    return "ok", gradient.detach().to_dense().cpu().numpy().reshape(tuple(tensor.shape))


def refusal(error):
    """(status, reason) of what a reverse pass raised."""
    words = f"{type(error).__name__}: {error}".strip()
    lacking = isinstance(error, NotImplementedError) or any(
        word in str(error) for word in ("not implemented", "is not differentiable", "no backward")
    )
    return ("null" if lacking else "refused"), words
