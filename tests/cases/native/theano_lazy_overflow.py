"""The side that is not computed overflows where its gradient is: the zero that arrives there is multiplied by infinity."""

import numpy as np
import theano
import theano.tensor as T
from theano.ifelse import ifelse


def build():
    level = theano.shared(np.array([300.0, 900.0]), "level")
    tail = T.log1p(T.exp(level)).sum()
    return {"costs": {"cost": ifelse(T.gt(level.max(), 50.0), level.sum(), tail)}, "wrt": [level]}
