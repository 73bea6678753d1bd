"""A scan that stops early, with a state and a sequence."""

import numpy as np
import theano
import theano.tensor as T
from theano.scan.utils import until


def build():
    factors = theano.shared(np.array([0.9, 1.4, 2.2, 7.0, 8.0, 9.0]), "factors")
    return {
        "scan": {
            "fn": lambda a, h: (h * a, until(a > 6.0)),
            "sequences": [factors],
            "outputs_info": [T.constant(1.0, dtype="float64")],
        },
        "objectives": {"total": lambda h: h.sum()},
        "wrt": [factors],
    }
