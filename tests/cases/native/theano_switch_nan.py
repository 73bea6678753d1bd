"""A square root on the side that the switch did not take."""

import theano.tensor as T


def build():
    x = T.dvector("x")
    y = T.switch(x > 2.0, T.sqrt(x - 2.0), 0.5 * x)
    return {"costs": {"y": y.sum()}, "wrt": [x], "inputs": {x: [1.0, 2.0, 5.0]}}
