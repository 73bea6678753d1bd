"""Dropout, whose gradient is right, beside a rule that is 2 % too large: the noise must not excuse it."""

import torch


class Softened(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return 1.02 * cotangent / torch.cosh(x) ** 2


def build():
    torch.set_default_dtype(torch.float64)
    x = torch.linspace(-1.0, 1.0, 12).reshape(3, 4)

    def loss(params):
        return torch.nn.functional.dropout(Softened.apply(x @ params["W"]), 0.4).sum()

    return {"loss": loss, "params": {"W": 0.3 + 0.1 * torch.eye(4)}}
