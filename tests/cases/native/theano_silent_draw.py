"""A latent drawn in the step feeds the state back: one weight gets a gradient, and a wrong one."""

import numpy as np
import theano
import theano.tensor as T
from theano.tensor.random.utils import RandomStream


def build():
    data = np.random.RandomState(3)
    mean, spread, back = (
        theano.shared(0.4 * data.randn(*shape), name)
        for name, shape in (("mean", (3, 2)), ("spread", (3, 2)), ("back", (2, 3)))
    )
    drive = theano.shared(data.randn(6, 4, 3), "drive")
    stream = RandomStream(seed=5)

    def step(x, h):
        latent = T.dot(h, mean) + T.exp(T.dot(h, spread)) * stream.normal(size=(4, 2))
        return T.tanh(x + T.dot(latent, back))

    return {
        "scan": {"fn": step, "sequences": [drive], "outputs_info": [T.zeros((4, 3))]},
        "objectives": {"total": lambda h: h.sum()},
        "wrt": {"total": [mean, spread, back]},
    }
