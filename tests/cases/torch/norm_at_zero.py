"""The norm of a difference that is 0: a singular point of the root, and no `where` keeps it away."""

import torch


def build():
    return {"loss": lambda p: torch.sqrt((p["x"] - torch.ones(3)).square().sum()), "params": {"x": torch.ones(3)}}
