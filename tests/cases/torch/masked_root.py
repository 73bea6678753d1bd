"""Roots of all entries, of which an index then leaves out those that are 0."""

import torch


def loss(params):
    squares = torch.tensor([4.0, 0.0, 1.0]) * params["w"]
    return torch.sqrt(squares)[squares > 0].sum()


def build():
    return {"loss": loss, "params": {"w": torch.tensor([0.5, 0.9, 0.7])}}
