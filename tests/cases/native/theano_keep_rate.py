"""The rate at which units are kept, learned through the mask that it draws in the step."""

import theano
import theano.tensor as T
from theano.sandbox.rng_mrg import MRG_RandomStream


def build():
    logit = theano.shared(0.4, "logit")
    stream = MRG_RandomStream(seed=6)

    def step(h, logit):
        mask = stream.binomial(size=(200,), p=T.nnet.sigmoid(logit), dtype="float64")
        return T.tanh(h * mask + 0.3)

    return {
        "scan": {"fn": step, "outputs_info": [T.ones(200)], "non_sequences": [logit], "n_steps": 2},
        "objectives": {"end": lambda h: h[-1].sum()},
        "wrt": [logit],
    }
