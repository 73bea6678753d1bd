"""One step of a stochastic state-space model: a nonlinear transition with additive process noise."""


def transition(xp, u, y, h, eps, A, B, b, C, q):
    """u: (batch, control), y: (batch, obs), h and eps: (batch, state), q: scalar, the noise's standard deviation."""
    # eps is only added: no derivative of this line contains it, so nothing has to be drawn again to go backward
    h = xp.tanh(h @ A + u @ B + b) + q * eps
    y_hat = h @ C
    return {"h": h, "loss": 0.5 * xp.sum((y - y_hat) ** 2, axis=-1)}
