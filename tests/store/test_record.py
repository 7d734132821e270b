"""Stored answers: any first part of one is a response, and so is any choice of its tracks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.store.record import Record, head_of, pack, track_bytes
from recsys.v1 import recommender_pb2 as pb

TEXT = st.text(min_size=1, max_size=300)
FOUND = st.tuples(TEXT, st.floats(width=32, allow_nan=False), st.none() | TEXT)


def packed(found: list[tuple[str, float, str | None]]) -> Record:
    return Record(memoryview(pack(head_of("g1", "personal"), [track_bytes(one) for one in found], range(len(found)))))


@given(st.lists(FOUND, max_size=30), st.integers(0, 40))
def test_the_first_part_of_a_record_is_the_response_of_that_length(found: list, k: int) -> None:
    response = pb.RecommendResponse.FromString(packed(found).first(k))
    expected = pb.RecommendResponse(
        generation="g1",
        source="personal",
        tracks=[pb.RankedTrack(track_id=t, score=s, reason_track_id=r or "") for t, s, r in found[:k]],
    )
    assert response == expected


@given(st.lists(FOUND, min_size=1, max_size=12), st.data())
def test_any_choice_of_tracks_is_a_response(found: list, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(found) - 1), max_size=12))
    record = packed(found)
    chosen = pb.RecommendResponse.FromString(record.picked(places)).tracks
    assert [(t.track_id, t.score, t.reason_track_id or None) for t in chosen] == [found[place] for place in places]
    assert record.found() == found


def test_rows_stand_beside_the_tracks() -> None:
    record = Record(pack(b"", [b"abc", b"de"], [7, -1]))
    assert record.rows.tolist() == [7, -1]
    assert np.array_equal(record.ends, [3, 5])
    assert record.tracks([1]) == [b"de"]
    assert Record(pack(b"head", [], [])).first(20) == b"head"


@pytest.mark.parametrize("kind", [pb.SimilarTracksResponse, pb.RecommendFromTracksResponse])
def test_lists_of_every_kind_read_alike(kind: type) -> None:
    response = kind.FromString(packed([("t", 0.5, "r")]).first(1))
    assert (response.generation, response.source) == ("g1", "personal")
    assert [t.track_id for t in response.tracks] == ["t"]
