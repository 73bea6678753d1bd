"""Runs inside the interpreter of the theano backend: Python 3.9 to 3.11, Theano-PyMC."""

import theano
import theano.tensor
from gradcheck_worker import tensor_xp


def namespace(dtype):
    """Return the Namespace of theano.tensor, and make `@` work on its variables; dtype: "float32" or "float64"."""
    tensor_xp.install_operators(theano.tensor)
    return tensor_xp.namespace(theano.tensor, theano, dtype)
