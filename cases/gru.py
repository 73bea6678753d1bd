"""One step of a GRU (Cho et al. 2014) over a padded batch: a sequence that has ended keeps its state."""


def gru_step(xp, t, x, h, lengths, W_r, U_r, b_r, W_u, U_u, b_u, W_c, U_c, b_c, W_y):
    """t: scalar, the step's number; x: (batch, input), h: (batch, hidden), lengths: int64 (batch,)."""
    reset = xp.sigmoid(x @ W_r + h @ U_r + b_r)
    update = xp.sigmoid(x @ W_u + h @ U_u + b_u)
    candidate = xp.tanh(x @ W_c + (reset * h) @ U_c + b_c)
    h_next = update * h + (1.0 - update) * candidate

    running = xp.expand_dims(t < lengths, axis=-1)  # (batch, 1)
    h = xp.where(running, h_next, h)
    return {"h": h, "logits": h @ W_y}
