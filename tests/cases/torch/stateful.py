"""A module that remembers its last state as a plain attribute: equal calls give different losses."""

import torch
from torch import nn


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7))
        self.state = torch.zeros(())

    def forward(self):
        self.state = torch.tanh(self.weight * self.state.detach() + 0.3)
        return self.state


def build():
    return {"loss": lambda model: model(), "params": Counting()}
