"""A saved result is clipped behind autograd's back, by way of `.data`: the backward pass reads what the forward did not use."""

import torch


def loss(params):
    state, total = torch.tensor(0.6), 0.0
    for _ in range(4):
        energy = torch.exp(params["rate"] * state)
        total = total + energy
        energy.data.clamp_(max=1.3)
        state = 0.7 * state + 0.2
    return total


def build():
    return {"loss": loss, "params": {"rate": torch.tensor(0.9)}}
