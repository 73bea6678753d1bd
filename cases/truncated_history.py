"""One step of an Elman RNN that forecasts a series."""


def rnn_step(xp, x, y, h, W_x, W_h, b_h, W_y, b_y):
    """x: (batch, input), y: (batch, output), h: (batch, hidden)."""
    h = xp.tanh(x @ W_x + h @ W_h + b_h)
    y_hat = h @ W_y + b_y
    return {"h": h, "loss": 0.5 * xp.sum((y - y_hat) ** 2, axis=-1)}
