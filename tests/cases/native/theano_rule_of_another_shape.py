"""A reverse rule that gives twice as many numbers as its input has: seen only when it runs."""

import numpy as np
import theano
import theano.tensor as T
from theano.graph.basic import Apply
from theano.graph.op import Op


class Halves(Op):
    __props__ = ()

    def make_node(self, x):
        x = T.as_tensor_variable(x)
        return Apply(self, [x], [x.type()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = np.asarray(0.5 * inputs[0])

    def grad(self, inputs, cotangents):
        return [T.concatenate([cotangents[0], cotangents[0]]) / 4.0]


def build():
    x = theano.shared(np.array([0.3, 0.6]), "x")
    return {"costs": {"sum": T.sin(Halves()(x * x)).sum()}, "wrt": [x]}
