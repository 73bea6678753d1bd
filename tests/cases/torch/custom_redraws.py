"""A stochastic custom function whose reverse rule draws its mask again."""

import torch


class Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * (torch.rand_like(x) > 0.4)

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * (torch.rand_like(cotangent) > 0.4)


def loss(params):
    return Masked.apply(torch.sin(params["x"])).sum()


def build():
    return {"loss": loss, "params": {"x": torch.linspace(0.1, 1.5, 16)}}
