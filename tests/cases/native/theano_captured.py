"""An expression that the step reads from around it instead of being given it."""

import theano
import theano.tensor as T


def build():
    root = theano.shared(0.8, "root")
    square = root**2
    square.name = "square"
    return {
        "scan": {"fn": lambda t: square * T.sin(t), "sequences": [T.arange(1.0, 5.0)]},
        "objectives": {"total": lambda y: y.sum()},
        "wrt": [square],
    }
