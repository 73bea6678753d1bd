"""The models of measure.py as a gradcheck backend, by the contract of backends/README.md. It runs in measure.py's own process:
the model is handed over in the case's options, which travel nowhere.
"""


def start(settings):
    return {"framework_version": ""}


def prepare(problem):
    model = problem.options["model"]
    return Model(problem, model if problem.dtype == model.settings.dtype else model.widened())


class Model:
    """One model; its one objective, "loss", is a sum of terms none of which is negative, so that it is its own magnitude."""

    def __init__(self, problem, model):
        self.problem, self.model = problem, model

    def values(self, arrays):
        value = self.model.value(*self.ordered(arrays))
        return [value], [abs(value)]

    def gradients(self, arrays, cotangent=1.0):
        self.model.reverse_passes += 1
        gradients = self.model.gradient(*self.ordered(arrays), cotangent=cotangent)
        return {"loss": {n: ("ok", g) for n, g in zip(self.problem.parameters, gradients, strict=True)}}

    def ordered(self, arrays):
        return [arrays[name] for name in self.problem.parameters]
