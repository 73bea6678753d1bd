"""One step of an RNN with a Gaussian likelihood, in single precision."""


def rnn_step(xp, x, y, h, W_x, W_h, b_h, W_y, b_y, log_scale):
    """x: (batch, input), y: (batch, output), h: (batch, hidden), log_scale: (output,)."""
    h = xp.tanh(x @ W_x + h @ W_h + b_h)
    y_hat = h @ W_y + b_y
    nll = xp.sum(0.5 * ((y - y_hat) * xp.exp(-log_scale)) ** 2 + log_scale, axis=-1)
    return {"h": h, "nll": nll}
