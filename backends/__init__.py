"""The backends: what runs in a framework's own interpreter. Never imports gradcheck."""
