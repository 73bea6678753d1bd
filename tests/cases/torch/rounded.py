"""A straight-through rounding: the forward is stepwise on purpose, the gradient passes it by."""

import torch


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent


def loss(params):
    return (Rounded.apply(4.0 * params["level"]) / 4.0 - 0.3).square().sum()


def build():
    return {"loss": loss, "params": {"level": torch.tensor([0.41, -0.77])}}
