"""Run by test_in_process.py in an environment that has PyTorch."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import gradcheck


class Wave(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return cotangent * torch.cos(x) * (1 + 0.1 * x)


class Cell(nn.Module):
    """In training mode: dropout draws, batch norm keeps statistics."""

    def __init__(self, activation):
        super().__init__()
        self.encoder, self.norm, self.dropout = nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Dropout(0.4)
        self.activation = activation

    def forward(self, x):
        return self.dropout(self.activation(self.norm(self.encoder(x))))  # the wrong line


def model(activation):
    torch.manual_seed(0)
    cell = Cell(activation)
    cell.norm.bias.grad = torch.ones(4)
    return cell, torch.randn(6, 3)


def loss(cell, x):
    return mse_loss(cell(x), x[:, :1].expand(-1, 4))


def state(cell):
    tensors = [*cell.parameters(), *cell.buffers(), cell.norm.bias.grad]
    generators = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()
    values = [(t.dtype, t.data_ptr(), t.detach().numpy().tobytes(), t.requires_grad) for t in tensors]
    return values, [m.training for m in cell.modules()], generators, torch.get_default_dtype()


def test_a_right_module_passes_in_its_own_precision_and_stays_as_it_was():
    cell, x = model(torch.tanh)
    before = state(cell)
    report = gradcheck.check(loss, cell, x)
    assert state(cell) == before
    assert report.ok
    assert {c.parameter: (c.backend, c.verdict, c.dtype) for c in report.checks} == dict.fromkeys(
        ("encoder.weight", "norm.weight", "norm.bias"), ("torch-unroll", "pass", "float32")
    )
    assert {c.reference for c in report.checks} == {"finite differences in float64"}


def test_a_wrong_rule_is_found_on_its_line_and_the_module_stays_as_it_was():
    cell, x = model(Wave.apply)
    before = state(cell)
    with pytest.raises(gradcheck.GradientError) as caught:
        gradcheck.assert_correct(loss, cell, x, wrt="encoder.weight")
    assert state(cell) == before
    (finding,) = caught.value.report.findings
    assert finding.code == "GC206"
    assert (finding.blame.file, finding.blame.op) == ("torch_models.py", "Wave")
    assert "# the wrong line" in finding.blame.text


def test_a_dict_of_tensors_is_checked_where_it_is():
    params = {"layers": [{"w": torch.randn(2, 2, dtype=torch.float64)}], "b": torch.zeros(2, dtype=torch.float64)}
    report = gradcheck.check(lambda p: torch.tanh(p["layers"][0]["w"] @ p["b"] + 0.3).sum(), params)
    assert report.ok
    assert {c.parameter for c in report.checks} == {"layers[0].w", "b"}
    assert not params["b"].requires_grad
