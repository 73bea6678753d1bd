"""A module in training mode: dropout draws, batch norm keeps running statistics, and nothing of it is wrong."""

import torch
from torch import nn


def build():
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Tanh(), nn.Linear(6, 2))
    data, target = torch.randn(8, 4), torch.randn(8, 2)
    return {"loss": lambda model: nn.functional.mse_loss(model(data), target), "params": model}
