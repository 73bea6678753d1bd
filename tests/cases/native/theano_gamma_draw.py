"""Shape and rate of a gamma distribution, from which is drawn."""

import theano
import theano.tensor as T
from theano.tensor.random.utils import RandomStream


def build():
    shape, rate = theano.shared(2.5, "shape"), theano.shared(1.5, "rate")
    waits = RandomStream(seed=8).gamma(
        T.nnet.softplus(shape),
        rate,
        size=(6,),
    )
    return {"costs": {"cost": T.log1p(waits).sum()}, "wrt": [shape, rate]}
