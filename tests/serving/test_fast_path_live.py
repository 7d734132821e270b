"""What a worker answers once something was heard, uploaded or deleted: at once, and from bytes where that can be."""

from pathlib import Path

import numpy as np
import pytest

from helpers.stores import copied
from recsys.errors import NotFoundError
from recsys.eventlog.events import Listened, Upload
from recsys.serving import call_context
from recsys.serving.fast_path import FastPath
from recsys.serving.reload import open_answers
from recsys.serving.server import METHODS
from recsys.v1 import recommender_pb2 as pb


@pytest.fixture
def answers(tiny_store: Path, tmp_path: Path) -> FastPath:
    return open_answers(copied(tiny_store, tmp_path))


def asked(answers: FastPath, **fields: object) -> tuple[str, pb.RecommendResponse]:
    """The way that an answer took, and the answer."""
    request = pb.RecommendRequest(**fields)
    quick = answers.recommend
    found = quick(request.SerializeToString())
    if found is None:
        return "computed", METHODS["Recommend"][0](answers.recommender, request)
    sent, way = found
    return call_context.PATHS[way], pb.RecommendResponse.FromString(sent)


def ids(answer: pb.RecommendResponse) -> list[str]:
    return [track.track_id for track in answer.tracks]


def upload_of(track_id: str, like: str, answers: FastPath) -> tuple[Upload, dict[str, np.ndarray]]:
    """A new track that is in all what another one is, as nobody has played it."""
    upload = Upload(track_id, f"hash of {track_id}", "x.mp3", None, "New", None, [], 2026, None, 9.0, "2026-01-01")
    row = answers.recommender.model.items.row(like)
    return upload, {"hybrid": np.array(answers.recommender.model.item_vectors[row])}


def test_whoever_listens_is_answered_from_the_list_of_now(answers: FastPath) -> None:
    way, before = asked(answers, user_id="u0", k=10)
    assert way == "plain"
    heard = ids(before)[0]
    assert answers.live is not None
    assert answers.live.record([Listened("u0", heard)]).recorded == 1
    assert answers.live.backlog() == 1
    way, after = asked(answers, user_id="u0", k=10)
    assert way == "live"
    assert heard not in ids(after)
    assert asked(answers, user_id="u1", k=10)[0] == "plain", "others stay as they were"
    assert asked(answers, user_id="u0", k=5, genres=["rock", "jazz", "folk", "metal"])[0] in ("filtered", "computed")


def test_a_new_user_has_a_list_of_their_own_after_the_first_listen(answers: FastPath) -> None:
    assert asked(answers, user_id="newcomer", k=5)[1].source == "popular"
    assert answers.live is not None
    answers.live.record([Listened("newcomer", "t3")])
    way, answer = asked(answers, user_id="newcomer", k=5)
    assert (way, answer.source) == ("live", "personal")
    assert "t3" not in ids(answer)


def test_a_deleted_track_is_in_no_list(answers: FastPath) -> None:
    victim = ids(asked(answers, user_id="u2", k=5)[1])[1]
    assert answers.live is not None
    answers.live.delete_track(victim)
    for user in ("u2", "u5", "u8", "nobody"):
        for more in ({}, {"max_per_artist": 2}, {"diversity": 0.5}):
            assert victim not in ids(asked(answers, user_id=user, k=8, **more)[1])
    with pytest.raises(NotFoundError):
        answers.recommender.track(victim)
    assert victim not in [t.track_id for t in answers.recommender.similar("t0", 30).tracks]


def test_a_deleted_user_is_nobody_until_they_listen_again(answers: FastPath) -> None:
    assert answers.live is not None
    answers.live.record([Listened("u3", "t1")])
    answers.live.delete_user("u3")
    assert asked(answers, user_id="u3", k=5)[1].source == "popular"
    answers.live.record([Listened("u3", "t4")])
    way, answer = asked(answers, user_id="u3", k=5)
    assert (way, answer.source) == ("live", "personal")


def test_an_upload_is_similar_and_recommended_at_once(answers: FastPath) -> None:
    liked = ids(asked(answers, user_id="u4", k=1)[1])[0]
    upload, vectors = upload_of("fresh", liked, answers)
    assert answers.live is not None
    assert answers.live.add(upload, vectors) > 0
    reached = [user for user in (f"u{n}" for n in range(28)) if asked(answers, user_id=user, k=20)[0] == "live"]
    assert reached
    assert any("fresh" in ids(asked(answers, user_id=user, k=20)[1]) for user in reached)
    sent, way = answers.similar_tracks(pb.SimilarTracksRequest(track_id=liked).SerializeToString())
    assert call_context.PATHS[way] == "live"
    assert pb.SimilarTracksResponse.FromString(sent).tracks[0].track_id == "fresh"
    assert answers.recommender.similar(liked, 5).tracks[0].track_id == "fresh"
    assert answers.recommender.track("fresh")["artist"] == "New"
