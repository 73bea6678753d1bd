"""A loss of a model's own derivative, by create_graph: every part of it is right."""

import torch
from torch import nn


def loss(model):
    x = torch.linspace(0.0, 1.0, 5).reshape(-1, 1).requires_grad_()
    u = model(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    return (slope + u).square().mean()


def build():
    torch.manual_seed(5)
    return {"loss": loss, "params": nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))}
