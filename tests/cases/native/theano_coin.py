"""A coin whose bias is learned by comparing it with uniform draws: the gradient is zero whatever happens."""

import theano
import theano.tensor as T
from theano.tensor.random.utils import RandomStream


def build():
    bias = theano.shared(0.4, "bias")
    heads = RandomStream(seed=3).uniform(0.0, 1.0, size=(100,)) < T.nnet.sigmoid(bias)
    return {"costs": {"payoff": T.switch(heads, 3.0, 1.0).mean()}, "wrt": [bias]}
