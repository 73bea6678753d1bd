"""Noise added before a sine: its slope is a cosine of the very draw."""

import theano
import theano.tensor as T
from theano.tensor.random.utils import RandomStream


def build():
    gain = theano.shared(0.7, "gain")
    stream = RandomStream(seed=2)
    states, _ = theano.scan(
        lambda h, gain: T.sin(gain * h + stream.normal(size=())),
        outputs_info=[T.constant(0.2, dtype="float64")],
        non_sequences=[gain],
        n_steps=4,
    )
    return {"costs": {"end": states[-1]}, "wrt": [gain]}
