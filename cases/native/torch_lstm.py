"""A sequence model in PyTorch: an nn.Module with an LSTM cell over time, dropout and layer norm, and a mean squared error."""

import torch
from torch import nn


class Forecaster(nn.Module):
    """Predicts the next value of each series from what it has seen so far."""

    def __init__(self, features=3, hidden=8):
        super().__init__()
        self.encoder = nn.Linear(features, hidden)
        self.cell = nn.LSTMCell(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(0.2)
        self.readout = nn.Linear(hidden, features)

    def forward(self, series):
        """series: (steps, batch, features). Returns the predictions, of the same shape."""
        hidden = series.new_zeros(series.shape[1], self.cell.hidden_size)
        state, predictions = (hidden, hidden), []
        for value in series:
            state = self.cell(torch.tanh(self.encoder(value)), state)
            predictions.append(self.readout(self.dropout(self.norm(state[0]))))
        return torch.stack(predictions)


def build():
    torch.manual_seed(0)
    series = torch.randn(10, 4, 3).cumsum(0)

    def loss(model, series):
        return nn.functional.mse_loss(model(series[:-1]), series[1:])

    return {"loss": loss, "params": Forecaster(), "args": [series]}
