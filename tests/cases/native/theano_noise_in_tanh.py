"""Noise inside a tanh whose output is the state: the gradient uses the stored output."""

import theano
import theano.tensor as T
from theano.tensor.random.utils import RandomStream


def build():
    weight = theano.shared(0.6, "weight")
    stream = RandomStream(seed=9)
    return {
        "scan": {
            "fn": lambda h, weight: T.tanh(weight * h + stream.normal(size=())),
            "outputs_info": [T.constant(0.2, dtype="float64")],
            "non_sequences": [weight],
            "n_steps": 4,
        },
        "objectives": {"end": lambda h: h[-1]},
        "wrt": [weight],
    }
