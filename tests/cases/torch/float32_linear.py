"""A linear layer in torch's own default precision, with a large constant in its loss: differences in float32 see nothing."""

import torch
from torch import nn


def loss(model, x, y):
    return 40.0 + (model(x) - y).pow(2).sum()


def build():
    torch.manual_seed(1)
    return {"loss": loss, "params": nn.Linear(3, 2), "args": [torch.rand(5, 3), torch.rand(5, 2)]}
