"""A mean handed to the sampler: no gradient passes through the draw itself."""

import theano
from theano.tensor.random.utils import RandomStream


def build():
    mu = theano.shared(0.3, "mu")
    draw = RandomStream(seed=4).normal(mu, 1.0)
    return {"costs": {"square": draw**2}, "wrt": [mu]}
