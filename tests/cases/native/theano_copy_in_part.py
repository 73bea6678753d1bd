"""An expression that the objective reads itself, too: only what passes through the scan is missing."""

import theano
import theano.tensor as T


def build():
    root = theano.shared(0.9, "root")
    cube = root**3
    cube.name = "cube"
    waves, _ = theano.map(lambda t: T.cos(cube * t), sequences=[T.arange(1.0, 4.0)])
    return {"costs": {"total": waves.sum() + cube**2}, "wrt": [cube, root]}
