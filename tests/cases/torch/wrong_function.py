"""A custom rule that forgets a term of the derivative, in a loop, beside correct ops."""

import torch


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return cotangent * torch.sigmoid(x)


def step(params, state, x):
    state = Swish.apply(params["W"] @ state + x)
    return state, state.sum()


def build():
    torch.manual_seed(2)
    return {
        "step": step,
        "carry": torch.zeros(3),
        "inputs": torch.randn(5, 3),
        "params": {"W": 0.5 * torch.randn(3, 3)},
    }
