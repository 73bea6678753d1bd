"""A coin whose bias is learned: heads or tails have no slope, their mean over many throws has."""

import pytensor.tensor as pt


def build():
    bias = pt.dscalar("bias")
    _, level = pt.random.shared_rng(seed=3).uniform(size=(100,))
    heads = level < pt.sigmoid(bias)
    return {"costs": {"payoff": pt.mean(3.0 * heads - 1.0)}, "wrt": [bias], "inputs": {bias: 0.4}}
