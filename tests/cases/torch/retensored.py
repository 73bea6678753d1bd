"""Values of tensors copied into a new one: torch.tensor cuts the graph, and only what goes around it gets a gradient."""

import torch


def loss(params):
    w, state = params["w"], torch.zeros(())
    for x in (0.2, 0.6, 1.1):
        features = torch.tensor([w * x, w * w])
        state = torch.tanh(0.4 * state + features.sum()) * (1.0 + 0.2 * w)
    return state


def build():
    return {"loss": loss, "params": {"w": torch.tensor(0.6)}}
