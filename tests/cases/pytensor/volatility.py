"""Stochastic volatility: the draw is scaled by a parameter, the generator is a carry. Its gradient has to read the draw."""

import pytensor.tensor as pt


def build():
    log_vol, phi = pt.dscalar("log_vol"), pt.dscalar("phi")
    key = pt.random.shared_rng(seed=4, name="key")

    def step(level, key):
        key, shock = key.normal()
        return phi * level + pt.exp(log_vol) * shock, key

    return {
        "scan": {"fn": step, "outputs_info": [pt.constant(0.1), key], "n_steps": 6},
        "objectives": {"end": lambda level, key: level[-1]},
        "wrt": [log_vol, phi],
        "inputs": {log_vol: -0.4, phi: 0.8},
    }
