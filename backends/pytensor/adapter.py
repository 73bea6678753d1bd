"""PyTensor: `pytensor.scan`, or the same step in a Python loop. All but the start is shared with Theano: _worker/symbolic.

Runs inside a backend's interpreter: Python >= 3.11, numpy >= 2, PyTensor 3. Mode, linker and floatX hold for the whole process,
as the default mode is what scan's inner function is compiled in.
"""

import contextlib
import os


def start(settings):
    """Import PyTensor. settings: mode, linker, dtype, cache (a folder for its compiled code)."""
    flags = {
        "floatX": settings["dtype"],
        "base_compiledir": settings["cache"],
        "traceback__limit": "12",  # so that a variable knows the line of the user's file that made it
        "exception_verbosity": "medium",  # the op that raised, and its line
        "mode": settings["mode"],
    }
    if settings["linker"] != "cvm":
        flags["cxx"] = ""
    given = os.environ.get("PYTENSOR_FLAGS", "")
    os.environ["PYTENSOR_FLAGS"] = ",".join(filter(None, [given] + ["{}={}".format(*item) for item in flags.items()]))
    import pytensor
    import pytensor.compile.mode as modes
    from gradcheck_worker import tensor_xp

    if settings["linker"] == "cvm" and not pytensor.config.cxx:
        raise RuntimeError("the linker 'cvm' needs a C++ compiler and there is none")
    modes.predefined_modes[settings["mode"]] = mode_of(modes, settings["mode"], settings["linker"])
    tensor_xp.install_operators(pytensor.tensor)
    return {"framework_version": pytensor.__version__}


def mode_of(modes, name, linker):
    """The rewrites of the mode under the linker. PyTensor's own FAST_COMPILE has Python as its linker, its FAST_RUN numba."""
    rewrites = [name.lower()]
    if linker == "vm":
        return modes.Mode(
            modes.VMLinker(use_cloop=False, c_thunks=False), modes.RewriteDatabaseQuery([*rewrites, "py_only"])
        )
    if linker == "numba":
        return modes.Mode(modes.NumbaLinker(), modes.RewriteDatabaseQuery([*rewrites, "numba"]))
    return modes.Mode(linker, modes.RewriteDatabaseQuery(rewrites))


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
    import pytensor
    from gradcheck_worker.symbolic import native

    yield native.form_of(built), pytensor.config.floatX


def prepare_second(problem):
    from gradcheck_worker.symbolic import model

    from . import framework

    return model.SecondOrder(problem, framework)
