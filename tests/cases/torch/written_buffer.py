"""Steps written into a tensor that was there before, part of it then scaled in place: autograd keeps track of it."""

import torch


def loss(params):
    state, kept = torch.tensor(0.4), torch.zeros(7)
    for t in range(7):
        state = torch.tanh(params["gain"] * state + 0.1 * t)
        kept[t] = state
    kept[1:3] *= 3.0
    kept[5].add_(state)
    return kept.pow(2).sum()


def build():
    return {"loss": loss, "params": {"gain": torch.tensor(0.8)}}
