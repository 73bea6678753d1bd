"""A latent drawn by `sample`, which is detached, where `rsample` is meant: the mean gets only the penalty's gradient."""

import torch
from torch.distributions import Normal


def loss(params):
    posterior, state, total = Normal(params["mean"], 0.7), torch.zeros(()), 0.0
    for x in (0.4, -0.1, 0.7):
        latent = posterior.sample()
        state = torch.tanh(0.5 * state + latent)
        total = total + (state - x) ** 2
    return total + 0.5 * params["mean"] ** 2


def build():
    return {"loss": loss, "params": {"mean": torch.tensor(0.5)}}
