"""What of a call's bytes becomes what of the recommender's, and back."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from recsys.serving.convert import listened
from recsys.v1 import recommender_pb2 as pb


@pytest.mark.parametrize(
    ("when", "told"),
    [
        (Timestamp(seconds=1_700_000_000, nanos=5_000_000), "2023-11-14T22:13:20.005+00:00"),
        (Timestamp(seconds=1 << 62), "no time"),
        (Timestamp(seconds=-(1 << 62)), "no time"),
        (None, ""),
    ],
)
def test_a_time_beyond_the_years_that_there_are_is_no_time(when: Timestamp | None, told: str) -> None:
    [event] = listened(pb.RecordListensRequest(listens=[pb.Listen(user_id="u", track_id="t", listened_at=when)]))
    assert event.at == told
