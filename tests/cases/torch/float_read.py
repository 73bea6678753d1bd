"""A Python float of a parameter, read off at every step: it cannot be let through, but it can be held fixed."""

import math

import torch


def loss(params):
    state = torch.tensor(0.3)
    for _ in range(5):
        state = torch.tanh(params["a"] * state + math.exp(-params["a"]))
    return state


def build():
    return {"loss": loss, "params": {"a": torch.tensor(0.6)}}
