"""The sampler's parameters moved out of it: a clean control."""

import pytensor.tensor as pt


def build():
    mean, log_sd = pt.dscalar("mean"), pt.dscalar("log_sd")
    _, draw = pt.random.shared_rng(seed=2).normal(size=(4,))
    return {
        "costs": {"square": pt.sum((mean + pt.exp(log_sd) * draw) ** 2)},
        "wrt": [mean, log_sd],
        "inputs": {mean: 0.3, log_sd: -0.2},
    }
