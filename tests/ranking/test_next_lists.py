"""Lists as of a moment, and what the order of plays tells as files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from helpers import streams
from recsys.config import RunSettings
from recsys.fit import fit
from recsys.ranking.model import Model
from recsys.ranking.next_lists import rank_after
from recsys.ranking.ranker import Ranking
from recsys.ranking.uploaded_tracks import Fresh, UploadedTracks
from recsys.recommender import Recommender
from recsys.types import NO_ITEM, Histories

SHORT = {
    "als": {"n_factors": 8, "epochs": 3},
    "choice": {"enabled": False},
    "lightfm": {"n_factors": 4, "epochs": 2},
    "content": {"epochs": 3, "fusion": {"dim": 8, "tower": 4, "hidden": 8, "lyrics": {"n_pieces": 512}}},
}
NOW = 1_600_000_000


@pytest.fixture(scope="module")
def follower() -> Recommender:
    return fit(streams.tracks(), streams.listens(), None, RunSettings.model_validate({"hybrid": SHORT}))


def asked(follower: Recommender, *histories: list[str]) -> tuple[csr_matrix, Histories]:
    """Plays and histories of people who heard these tracks, one a minute until ``NOW``."""
    rows = [follower.model.items.rows(history) for history in histories]
    counts = csr_matrix((len(rows), len(follower.model.items)), dtype=np.float32).tolil()
    for row, items in enumerate(rows):
        for item in items.tolist():
            counts[row, item] += 1
    starts = np.concatenate([[0], np.cumsum([len(items) for items in rows])]).astype(np.int64)
    seconds = np.concatenate([NOW - 60 * np.arange(len(items), 0, -1) for items in rows]).astype(np.uint32)
    return csr_matrix(counts), Histories(starts, np.concatenate(rows).astype(np.int32), seconds)


def ids(follower: Recommender, items: np.ndarray) -> list[str]:
    return follower.model.items.ids(items[items != NO_ITEM])


def test_a_list_follows_what_was_heard_last(follower: Recommender) -> None:
    counts, histories = asked(follower, ["a7-0", "a7-1", "a3-4", "a3-5"], ["a3-4", "a3-5", "a7-0", "a7-1"])
    assert (counts[0] != counts[1]).nnz == 0, "the same plays in another order"
    listed = follower.rank_at(counts, histories, np.full(2, NOW), 5)
    assert ids(follower, listed.items[0])[0].startswith("a3-")
    assert ids(follower, listed.items[1])[0].startswith("a7-")
    assert (np.diff(listed.scores, axis=1) <= 0).all()
    by_all = follower.rank_folded(counts, 5)
    assert by_all.items[0].tolist() == by_all.items[1].tolist()


def test_each_row_is_by_itself(follower: Recommender) -> None:
    people = [["a1-1"], ["a2-3", "a2-4", "a5-0"], ["a9-9", "a9-10", "a0-0", "a0-1"]]
    counts, histories = asked(follower, *people)
    together = follower.rank_at(counts, histories, np.full(3, NOW), 7)
    for row, person in enumerate(people):
        alone = follower.rank_at(*asked(follower, person), np.full(1, NOW), 7)
        assert alone.items[0].tolist() == together.items[row].tolist()


def test_what_was_played_is_left_out_and_a_short_catalogue_padded(follower: Recommender) -> None:
    tracks = follower.model.items.all()
    counts, histories = asked(follower, tracks[:-3])
    listed = follower.rank_at(counts, histories, np.full(1, NOW), 5)
    assert sorted(ids(follower, listed.items[0])) == sorted(tracks[-3:])
    assert listed.items[0, 3:].tolist() == [NO_ITEM] * 2
    assert np.isneginf(listed.scores[0, 3:]).all()


def test_only_candidates_may_appear(follower: Recommender) -> None:
    some = follower.model.items.rows(["a3-6", "a3-7", "a4-0", "a9-9"])
    listed = follower.rank_at(*asked(follower, ["a3-4", "a3-5"]), np.full(1, NOW), 9, candidates=some)
    assert sorted(ids(follower, listed.items[0])) == ["a3-6", "a3-7", "a4-0", "a9-9"]
    assert ids(follower, listed.items[0])[0] == "a3-6"


def test_without_a_history_it_is_the_list_of_all_plays(follower: Recommender) -> None:
    counts, histories = asked(follower, ["a3-4", "a3-5"], ["a1-1", "a2-2"])
    half = Histories(np.array([0, 0, 2], np.int64), histories.items[2:], histories.seconds[2:])
    listed = follower.rank_at(counts, half, np.full(2, NOW), 6)
    assert listed.items[0].tolist() == follower.rank_folded(counts, 6).items[0].tolist()
    assert listed.items[1].tolist() == follower.rank_at(counts, histories, np.full(2, NOW), 6).items[1].tolist()


def test_a_pause_ends_a_session(follower: Recommender) -> None:
    order = follower.model.order
    assert order is not None
    counts, histories = asked(follower, ["a3-4", "a3-5"])
    gap = order.following.session_gap_s
    at = [follower.rank_at(counts, histories, np.array([NOW + after]), 9) for after in (0, gap - 60, gap - 59, 10**6)]
    assert at[0].scores.tolist() == at[1].scores.tolist()
    assert at[2].scores.tolist() == at[3].scores.tolist()
    assert at[1].scores.tolist() != at[2].scores.tolist()


def test_an_upload_by_the_artist_is_among_what_comes_next_and_may_be_what_was_played(follower: Recommender) -> None:
    """It lies near by its artist, though no play says so; it is not named by more than its vector and that."""
    model = follower.model
    like = np.array(model.item_vectors[model.items.row("a3-9")], np.float32)
    about = {"track_id": "fresh", "title": "Fresh", "artist": "a3"}
    other = {"track_id": "other", "title": "Other", "artist": "nobody else"}
    uploads = UploadedTracks.none(len(like), len(model.items)).with_tracks(
        [Fresh(about, like, {}), Fresh(other, like, {})]
    )
    later = follower.with_uploads(uploads)
    listed = next_after(later, "a3-4", "a3-5")
    assert listed.index("fresh") < listed.index("other"), "the same vector, by another artist"
    same, another = (
        later.recommend_from_tracks(["a3-1", name], 9, ordered=True, describe=False) for name in ("fresh", "other")
    )
    assert [found.tracks[0].track_id for found in (same, another)] == ["a3-2"] * 2
    assert same.tracks[0].score > another.tracks[0].score, "who stays with an artist"
    assert "fresh" not in {track.track_id for track in same.tracks}
    gone = follower.with_uploads(uploads.with_hidden([len(model.items), model.items.row("a3-6")]))
    assert {"fresh", "a3-6"}.isdisjoint(next_after(gone, "a3-4", "a3-5"))
    assert "a3-7" in next_after(gone, "a3-4", "a3-5")


def next_after(recommender: Recommender, *tracks: str) -> list[str]:
    listed = recommender.recommend_from_tracks(tracks, 200, ordered=True, describe=False).tracks
    return [track.track_id for track in listed]


def test_it_comes_back_from_files_as_it_was(follower: Recommender, tmp_path: Path) -> None:
    follower.model.save(tmp_path / "arrays")
    order, again = follower.model.order, Model.load(tmp_path / "arrays").order
    assert order is not None
    assert again is not None
    assert again.following == order.following
    assert again.histories.seconds.tolist() == order.histories.seconds.tolist()
    near, kept = order.surroundings, again.surroundings
    recent, everything = np.array([7, 3], np.int32), np.arange(len(near.artists), dtype=np.int32)
    assert kept.signals(recent, everything).tolist() == near.signals(recent, everything).tolist()
    assert kept.candidates(recent).tolist() == near.candidates(recent).tolist()


def test_an_old_generation_has_no_order(follower: Recommender, tmp_path: Path) -> None:
    follower.model.save(tmp_path / "arrays")
    (tmp_path / "arrays" / "following.json").unlink()
    assert Model.load(tmp_path / "arrays").order is None


@pytest.mark.parametrize("damage", ["{", json.dumps({"half_life": 1.0})])
def test_a_damaged_file_is_told(follower: Recommender, tmp_path: Path, damage: str) -> None:
    from recsys.errors import ArtefactError

    follower.model.save(tmp_path / "arrays")
    (tmp_path / "arrays" / "following.json").write_text(damage)
    with pytest.raises(ArtefactError, match="cannot read the arrays"):
        Model.load(tmp_path / "arrays")


def test_what_a_user_dislikes_is_not_what_comes_next(follower: Recommender) -> None:
    """Neither by the query nor as what lies near the last plays."""
    order = follower.model.order
    assert order is not None
    model = replace(follower.model, order=replace(order, stored=order.following))
    user = np.array([3], np.int32)
    first = rank_after(Ranking(model), user, 5).items[0]
    barred = csr_matrix(model.barred.shape, dtype=bool).tolil()
    barred[3, first[:2]] = True
    ranking = Ranking(replace(model, barred=csr_matrix(barred)))
    assert rank_after(ranking, user, 3).items[0].tolist() == first[2:].tolist()
    everybody = rank_after(ranking, np.arange(6, dtype=np.int32), 3)
    assert everybody.items[3].tolist() == first[2:].tolist()
    assert everybody.items[2].tolist() == rank_after(Ranking(model), np.array([2], np.int32), 3).items[0].tolist()
