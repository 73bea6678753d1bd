"""A latent drawn in the step feeds the state back: two weights are refused, the third gets a gradient that is wrong."""

import numpy as np
import pytensor
import pytensor.tensor as pt


def build():
    data = np.random.default_rng(3)
    mean, spread, back = (
        pytensor.shared(0.4 * data.standard_normal(shape), name)
        for name, shape in (("mean", (3, 2)), ("spread", (3, 2)), ("back", (2, 3)))
    )
    drive = data.standard_normal((6, 4, 3))

    def step(x, h):
        rng = pt.random.shared_rng(seed=5)
        rng.default_update, draw = rng.normal(size=(4, 2))
        latent = h @ mean + pt.exp(h @ spread) * draw
        return pt.tanh(x + latent @ back)

    return {
        "scan": {"fn": step, "sequences": [pt.constant(drive)], "outputs_info": [pt.zeros((4, 3))]},
        "objectives": {"total": lambda h: h.sum()},
        "wrt": [mean, spread, back],
    }
