from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.tf_bundle import bundle
from recsys.audio.networks.tf_checkpoint import read_checkpoint
from recsys.errors import ArtefactError

TENSORS = {
    "conv2d/bias": np.array([1.5, -2.0, 3.25], np.float32),
    "conv2d/kernel": np.arange(200 * 3, dtype=np.float32).reshape(200, 3, 1),
    "step": np.array(7.0, np.float32),
}


def test_what_was_written_is_read() -> None:
    found = read_checkpoint(*bundle(TENSORS))
    assert found.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array)


def test_a_tensor_that_was_cut_off_is_told() -> None:
    index, data = bundle(TENSORS)
    with pytest.raises(ArtefactError, match="2,412 bytes are declared, 2,409 are there"):
        read_checkpoint(index, data[:-7])


def test_other_types_are_left_out() -> None:
    assert read_checkpoint(*bundle(TENSORS, dtype=9)) == {}


def test_damage_is_told() -> None:
    index, data = bundle(TENSORS)
    for damaged in ((b"", data), (index[:-1], data), (index[1:], data), (index, data[:-1]), (index + b"\0", data)):
        with pytest.raises(ArtefactError, match="damaged"):
            read_checkpoint(*damaged)


def test_a_compressed_block_is_told() -> None:
    index, data = bundle(TENSORS, compressed=1)
    with pytest.raises(ArtefactError, match="compressed"):
        read_checkpoint(index, data)


@given(at=st.integers(0, 400), byte=st.integers(0, 255), cut=st.integers(0, 400))
def test_damaged_bytes_give_an_error_or_tensors_and_nothing_else(at: int, byte: int, cut: int) -> None:
    index, data = bundle(TENSORS)
    at %= len(index)
    for broken in (index[:at] + bytes([byte]) + index[at + 1 :], index[cut:]):
        with suppress(ArtefactError):
            read_checkpoint(broken, data)
