"""Truncated backpropagation: the hidden state is detached after every third step."""

import torch


def loss(params):
    state = torch.tensor([0.4, -0.2])
    for t in range(8):
        if t and t % 3 == 0:
            state = state.detach()
        state = torch.tanh(params["W"] @ state + params["b"])
    return state.sum()


def build():
    return {"loss": loss, "params": {"W": torch.tensor([[1.1, 0.3], [-0.4, 0.9]]), "b": torch.tensor([0.1, 0.2])}}
