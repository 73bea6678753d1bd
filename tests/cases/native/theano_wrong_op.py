"""An op with an additive term in its reverse rule, inside a scan."""

import numpy as np
import theano
import theano.tensor as T
from theano.graph.basic import Apply
from theano.graph.op import Op


class Affine(Op):
    """3 x + 1/4, whose reverse rule forgot that the constant has none."""

    __props__ = ()

    def make_node(self, x):
        x = T.as_tensor_variable(x)
        return Apply(self, [x], [x.type()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = np.asarray(3 * inputs[0] + 0.25)

    def grad(self, inputs, cotangents):
        return [3 * cotangents[0] + 0.25]


def build():
    rate = theano.shared(0.6, "rate")
    affine = Affine()
    return {
        "scan": {
            "fn": lambda h, rate: T.tanh(affine(rate * h)),
            "outputs_info": [T.constant(0.3, dtype="float64")],
            "non_sequences": [rate],
            "n_steps": 4,
        },
        "objectives": {"total": lambda h: h.sum()},
        "wrt": [rate],
    }
