"""A step for both rollouts, over nested parameters: torch's scan operator and a loop give the same."""

import torch


def step(params, state, x):
    state = torch.tanh(params["cell"]["W"] @ state + params["cell"]["b"] + x)
    return state, params["readout"][0] @ state


def build():
    torch.manual_seed(6)
    return {
        "step": step,
        "carry": torch.zeros(3),
        "inputs": torch.randn(5, 3),
        "params": {"cell": {"W": 0.5 * torch.randn(3, 3), "b": torch.zeros(3)}, "readout": [torch.randn(2, 3)]},
        "loss": {"last": lambda state, outputs: state.sum(), "all": lambda state, outputs: outputs.square().mean()},
    }
