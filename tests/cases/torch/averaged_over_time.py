"""A custom function that divides the gradient by the number of steps."""

import torch


class SharedWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, steps):
        ctx.steps = steps
        return weight.clone()

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent / ctx.steps, None


def loss(params):
    weight, state = SharedWeight.apply(params["weight"], 6), torch.zeros(())
    for x in torch.linspace(0.2, 1.2, 6):
        state = torch.tanh(weight[0] * state + weight[1] * x)
    return state


def build():
    return {"loss": loss, "params": {"weight": torch.tensor([0.6, 0.5])}}
