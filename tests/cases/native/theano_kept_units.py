"""Masks and noise of a generator whose state is an ordinary tensor: right, in the recurrence too."""

import numpy as np
import theano
import theano.tensor as T
from theano.sandbox.rng_mrg import MRG_RandomStream


def build():
    weight = theano.shared(0.4 * np.eye(3) + 0.2, "weight")
    stream = MRG_RandomStream(seed=6)

    def step(h, weight):
        mask = stream.binomial(size=(3,), p=0.7, dtype="float64")
        return T.sin(T.dot(weight, h * mask) * (1.0 + 0.2 * stream.normal((3,))))

    return {
        "scan": {
            "fn": step,
            "outputs_info": [T.ones(3)],
            "non_sequences": [weight],
            "n_steps": 4,
            "go_backwards": True,
        },
        "objectives": {"end": lambda h: h[-1].sum()},
        "wrt": [weight],
    }
