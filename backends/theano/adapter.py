"""Theano: `theano.scan`, or the same step in a Python loop.

Runs inside a backend's interpreter: Python >= 3.9, numpy, Theano-PyMC. Mode, linker and floatX hold for the whole process:
Theano caches the default mode and hands it to scan's inner function, so they are set before the import and never changed.
"""

import contextlib
import os


def start(settings):
    """Import Theano. settings: mode, linker, dtype, cache (a folder for its compiled code)."""
    flags = {
        "blas__ldflags": "",  # found by a compiler run that fails on most machines; Python code uses NumPy's own
        "floatX": settings["dtype"],
        "base_compiledir": settings["cache"],
        "traceback__limit": "12",  # so that a variable knows the line of the user's file that made it
        "mode": settings["mode"],
    }
    if settings["linker"] == "py":
        flags["cxx"] = ""
    given = os.environ.get("THEANO_FLAGS", "")
    os.environ["THEANO_FLAGS"] = ",".join(filter(None, [given] + ["{}={}".format(*item) for item in flags.items()]))
    import theano
    import theano.compile.mode as modes
    from gradcheck_worker import tensor_xp

    if settings["linker"] != "py":
        if not theano.config.cxx:
            raise RuntimeError("the linker {!r} needs a C++ compiler and there is none".format(settings["linker"]))
        optimizer = modes.predefined_modes[settings["mode"]].provided_optimizer
        modes.predefined_modes[settings["mode"]] = modes.Mode(settings["linker"], optimizer)
    tensor_xp.install_operators(theano.tensor)
    return {"framework_version": theano.__version__}


def prepare(problem):
    from gradcheck_worker.symbolic import model

    from . import framework

    return model.Model(problem, framework)


def prepare_native(problem):
    from gradcheck_worker.symbolic import native

    from . import framework

    return native.prepare(problem, framework)


@contextlib.contextmanager
def in_process(built):
    """Around a check in the user's own process: (the model in native form, the process's floatX).

    Nothing is set: graphs are compiled in the mode that the process has, and no update is applied.
    """
    import theano
    from gradcheck_worker.symbolic import native

    yield native.form_of(built), theano.config.floatX


def prepare_second(problem):
    from gradcheck_worker.symbolic import model

    from . import framework

    return model.SecondOrder(problem, framework)
