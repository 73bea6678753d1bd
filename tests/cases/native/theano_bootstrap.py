"""A value that is learned from its own estimate one step later, which is not to be moved: a target, stopped on purpose."""

import numpy as np
import theano
import theano.tensor as T
from theano.gradient import disconnected_grad


def build():
    weight = theano.shared(np.array([0.2, -0.4]), "weight")
    states = T.constant(np.array([[1.0, 0.3], [0.4, 0.9], [0.1, 0.6], [0.8, 0.2]]))

    def step(now, then, weight):
        target = 0.3 + 0.8 * T.dot(then, weight)
        return T.sqr(T.dot(now, weight) - disconnected_grad(target))

    errors, _ = theano.scan(step, sequences=[{"input": states, "taps": [0, 1]}], non_sequences=[weight])
    return {"costs": {"error": errors.mean()}, "wrt": [weight]}
