"""A rate that only the sampler sees: no reverse rule leads to it."""

import pytensor.tensor as pt


def build():
    scale = pt.dvector("scale")
    _, wait = pt.random.shared_rng(seed=2).exponential(scale)
    return {"costs": {"wait": (wait**2).sum()}, "wrt": [scale], "inputs": {scale: [0.5, 1.5]}}
