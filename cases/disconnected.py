"""One step of a forecaster with two heads: a point forecast, and the spread of the errors around it."""


def forecast_step(xp, x, y, h, W_x, W_h, b_h, W_point, b_point, W_spread, b_spread):
    """x: (batch, input), y: (batch, output), h: (batch, hidden)."""
    h = xp.tanh(x @ W_x + h @ W_h + b_h)
    point = h @ W_point + b_point
    log_spread = h @ W_spread + b_spread

    error = y - point
    squared_error = 0.5 * xp.sum(error**2, axis=-1)  # the spread has no part in this one
    nll = xp.sum(0.5 * (error * xp.exp(-log_spread)) ** 2 + log_spread, axis=-1)
    return {"h": h, "squared_error": squared_error, "nll": nll}
