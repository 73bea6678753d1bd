"""A scan inside of a scan reads an expression of two parameters from around both."""

import theano
import theano.tensor as T


def build():
    left, right = theano.shared(0.6, "left"), theano.shared(1.1, "right")
    both = T.exp(-left) + right
    both.name = "both"

    def outer(t):
        inside, _ = theano.scan(lambda s: T.sin(both * s * t), sequences=[T.arange(1.0, 4.0)])
        return inside.sum()

    result, _ = theano.scan(outer, sequences=[T.arange(1.0, 3.0)])
    return {"costs": {"total": result.sum()}, "wrt": [both, left, right]}
