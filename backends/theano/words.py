"""Errors that Theano's functions raise while they run, in the words that a user needs: what, in which op, at which line.

Runs inside a backend's interpreter: Python >= 3.9. Theano adds shapes, strides and the traces of all outer functions.
"""

import contextlib
import os
import re

from gradcheck_worker.problem import StepError

NODE = "Apply node that caused the error:"


@contextlib.contextmanager
def in_few():
    """Turn what a compiled function raises into a StepError that knows its place."""
    try:
        yield
    except StepError:
        raise
    except Exception as error:
        if NODE not in str(error):
            raise
        told = StepError(brief(error))
        told.place = place(str(error))
        raise told from error


def brief(error):
    """The error's kind and words, and the op that raised it, in one line."""
    text = str(error)
    words = " ".join(text.partition(NODE)[0].split())
    op = re.search(re.escape(NODE) + r"\s*([^\n(]+)", text)
    return f"{type(error).__name__}: {words}" + (f" (in {op.group(1).strip()})" if op else "")


def place(text):
    """[file, line] of the user's innermost frame that made the op; None where there is none: a gradient made it."""
    import gradcheck_worker
    import numpy
    import theano

    libraries = [os.path.dirname(os.path.abspath(m.__file__)) for m in (theano, numpy, gradcheck_worker)]
    own = [os.path.dirname(os.path.abspath(__file__)), *libraries]
    made = text.partition("Backtrace when the node is created")[2].partition("HINT")[0]
    frames = re.findall(r'File "([^"]+)", line (\d+)', made)
    theirs = [
        (file, int(line))
        for file, line in frames
        if os.path.isfile(file) and not file.startswith(tuple(f + os.sep for f in own))
    ]
    return list(theirs[-1]) if theirs else None
