"""The noise is drawn by a scan inside of the step."""

import theano
import theano.tensor as T
from theano.tensor.random.utils import RandomStream


def build():
    gain = theano.shared(0.8, "gain")
    stream = RandomStream(seed=5)

    def jitter(x, gain):
        return T.sin(gain * x * (1.0 + 0.3 * stream.normal(0.0, 1.0)))

    def step(h, gain):
        path, updates = theano.scan(jitter, outputs_info=[h], non_sequences=[gain], n_steps=2)
        return path[-1], updates

    return {
        "scan": {
            "fn": step,
            "outputs_info": [T.constant(0.9, dtype="float64")],
            "non_sequences": [gain],
            "n_steps": 3,
        },
        "objectives": {"end": lambda h: h[-1]},
        "wrt": [gain],
    }
