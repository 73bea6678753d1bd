"""A recurrent net with a latent variable, in plain Theano: shared variables read by the step, noise drawn inside the scan."""

import numpy as np
import theano
import theano.tensor as T
from theano.tensor.random.utils import RandomStream

STEPS, BATCH, HIDDEN, LATENT = 8, 4, 5, 3


def weights(rng, name, *shape):
    return theano.shared(0.4 * rng.standard_normal(shape), name)


def build():
    rng = np.random.default_rng(0)
    W_h = weights(rng, "W_h", HIDDEN, HIDDEN)
    W_mu = weights(rng, "W_mu", HIDDEN, LATENT)
    W_sigma = weights(rng, "W_sigma", HIDDEN, LATENT)
    W_z = weights(rng, "W_z", LATENT, HIDDEN)
    stream = RandomStream(seed=1)
    x = T.dtensor3("x")

    def step(x_t, h):
        eps = stream.normal(size=(BATCH, LATENT))
        z = T.dot(h, W_mu) + T.exp(0.5 * T.dot(h, W_sigma)) * eps
        return T.tanh(x_t + T.dot(h, W_h) + T.dot(z, W_z))

    return {
        "scan": {"fn": step, "sequences": [x], "outputs_info": [T.zeros((BATCH, HIDDEN))]},
        "objectives": {"energy": lambda h: T.sqr(h).sum(), "last": lambda h: h[-1].sum()},
        "wrt": [W_h, W_mu, W_sigma, W_z],
        "inputs": {x: rng.standard_normal((STEPS, BATCH, HIDDEN))},
    }
