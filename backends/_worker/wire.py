"""Arrays as .npz bytes: readable by every numpy, never pickled. Shared by both ends of the channel."""

import io

import numpy as np


def pack(arrays):
    """Turn a dict of name -> array into bytes. Names may hold any character but the NUL."""
    buffer = io.BytesIO()
    names = list(arrays)
    for name in names:
        if np.asarray(arrays[name]).dtype.hasobject:  # savez would pickle them, and the other end refuses that
            raise ValueError(f"{name!r} holds Python objects, not numbers")
    # numbered members: a name such as "../x" or "file" must not meet zip paths or savez's own keywords
    np.savez(buffer, **{f"a{i}": np.asarray(arrays[name]) for i, name in enumerate(names)})
    return {"names": names, "npz": buffer.getvalue()}


def unpack(packed):
    """Give back what `pack` got. Raises ValueError if a member holds Python objects."""
    with np.load(io.BytesIO(packed["npz"]), allow_pickle=False) as members:
        return {name: members[f"a{i}"] for i, name in enumerate(packed["names"])}
