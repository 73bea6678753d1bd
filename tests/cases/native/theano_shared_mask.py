"""One mask for all steps: right, and worth a word."""

import theano
import theano.tensor as T
from theano.sandbox.rng_mrg import MRG_RandomStream


def build():
    weight = theano.shared(0.8, "weight")
    mask = MRG_RandomStream(seed=2).binomial(size=(3,), p=0.5, dtype="float64")
    return {
        "scan": {
            "fn": lambda h, mask, weight: T.tanh(weight * h * mask + 0.2),
            "outputs_info": [T.ones(3)],
            "non_sequences": [mask, weight],
            "n_steps": 4,
        },
        "objectives": {"end": lambda h: h[-1].sum()},
        "wrt": [weight],
    }
