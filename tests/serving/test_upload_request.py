"""What is said of an upload, read and checked before any of its sound is."""

import pytest

from recsys.errors import DataError
from recsys.serving.upload_request import MAX_ID_BYTES, read_about
from recsys.v1 import recommender_pb2 as pb


@pytest.mark.parametrize(
    ("track_id", "told"),
    [
        (
            "é" * (MAX_ID_BYTES // 2) + "e",
            f"has {MAX_ID_BYTES + 1:,} bytes, expected {MAX_ID_BYTES} or fewer",
        ),
        (" a", "begins or ends with a space"),
        ("a ", "begins or ends with a space"),
        ("a\nb", "control characters"),
    ],
)
def test_an_id_that_none_can_have_is_refused(track_id: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_about(pb.NewTrack(track_id=track_id))


def test_an_id_is_taken_as_it_is() -> None:
    longest = "é" * (MAX_ID_BYTES // 2)
    assert read_about(pb.NewTrack(track_id=longest)).track.track_id == longest
    assert read_about(pb.NewTrack(track_id="a b")).track.track_id == "a b"
    assert read_about(pb.NewTrack()).track.track_id is None
