"""The entropy of a distribution with an outcome that never occurs: the zero is kept out after the logarithm, too late."""

import numpy as np
import theano
import theano.tensor as T


def build():
    share = theano.shared(np.array([0.25, 0.0, 0.75]), "share")
    terms = T.switch(share > 0, share * T.log(share), 0.0)
    return {"costs": {"entropy": -terms.sum()}, "wrt": [share]}
