"""What goes over the channel comes out as it went in, whatever its name, shape or type."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from gradcheck._backends._worker import wire

NUMBERS = st.one_of(
    arrays_of.floating_dtypes(),
    arrays_of.integer_dtypes(),
    arrays_of.boolean_dtypes(),
    arrays_of.complex_number_dtypes(),
)
ARRAYS = NUMBERS.flatmap(
    lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, min_side=0, max_side=4))
)


@given(st.dictionaries(st.text(max_size=20), ARRAYS, max_size=4))
def test_round_trip(named):
    back = wire.unpack(wire.pack(named))
    assert list(back) == list(named)
    for name, array in named.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("name", ["file", "../up", "a/b", "allow_pickle", "", "d h\nW"])
def test_names_that_archives_and_savez_would_trip_over(name):
    assert wire.unpack(wire.pack({name: np.arange(3)}))[name].tolist() == [0, 1, 2]


def test_objects_are_refused_on_the_way_in():
    with pytest.raises(ValueError, match="'x' holds Python objects"):
        wire.pack({"x": np.array([object()])})
