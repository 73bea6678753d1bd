"""The same kind of latent, with the draw returned from the step: the scan stores it, and every gradient is right."""

import numpy as np
import pytensor
import pytensor.tensor as pt


def build():
    data = np.random.default_rng(8)
    gain, spread = (pytensor.shared(0.4 * data.standard_normal((3, 3)), name) for name in ("gain", "spread"))
    rng = pytensor.shared(np.random.default_rng(6), "rng")

    def step(h, rng):
        after, draw = pt.random.normal(size=(3,), rng=rng).owner.outputs
        return [pt.tanh(h @ gain + pt.exp(h @ spread) * draw), draw], {rng: after}

    return {
        "scan": {"fn": step, "outputs_info": [pt.ones(3), None], "non_sequences": [rng], "n_steps": 5},
        "objectives": {"total": lambda h, draw: h.sum()},
        "wrt": [gain, spread],
    }
