"""What goes over the socket to the embedding process comes out as it went in, or is refused."""

import asyncio
import json
import socket
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.uploads.wire import MAX_JSON_BYTES, packed, receive, received

VECTORS = st.dictionaries(st.text(max_size=5), st.lists(st.floats(width=32, allow_nan=False), max_size=5), max_size=4)
MESSAGES = st.dictionaries(st.text(max_size=5), st.text() | st.integers() | st.none(), max_size=4)


def sent(content: bytes):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(content)
        theirs.shutdown(socket.SHUT_WR)
        return receive(ours)


async def streamed(content: bytes):
    stream = asyncio.StreamReader()
    stream.feed_data(content)
    stream.feed_eof()
    return await received(stream)


@given(message=MESSAGES, vectors=VECTORS)
def test_it_comes_out_as_it_went_in(message, vectors):
    message.pop("vectors", None)
    content = packed(message, {name: np.array(row, np.float32) for name, row in vectors.items()})
    for got, rows in (sent(content), asyncio.run(streamed(content))):
        assert got == message
        assert {name: row.tolist() for name, row in rows.items()} == vectors
        assert [*rows] == [*vectors]


@pytest.mark.parametrize("kept", [0, 3, 10, -1])
def test_a_message_that_breaks_off_is_none(kept):
    content = packed({"a": "b"}, {"sound": np.ones(3, np.float32)})[:kept]
    with pytest.raises(EOFError):
        sent(content)
    with pytest.raises(EOFError):
        asyncio.run(streamed(content))


@pytest.mark.parametrize(
    "text",
    [b"no JSON", json.dumps({"vectors": {"a": -1}}).encode(), json.dumps({"vectors": {"a": 2**30}}).encode()],
)
def test_what_is_no_message_is_refused(text):
    with pytest.raises(ValueError, match=r"Expecting value|are announced"):
        sent(struct.pack(">I", len(text)) + text)


def test_a_length_is_believed_up_to_a_limit():
    with pytest.raises(ValueError, match="is announced"):
        sent(struct.pack(">I", MAX_JSON_BYTES + 1))
