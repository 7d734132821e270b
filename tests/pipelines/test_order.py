"""What comes next, from tables to a store: published, read back, the same as in memory."""

from pathlib import Path

import pytest

from helpers import streams
from helpers.catalogues import quick_settings
from pipelines.build import Inputs, build
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.store.manifest import read_facts
from recsys.util.progress import Silent

ASKED = ["a1-2", "a1-3", "a7-1", "a7-2"]


@pytest.mark.slow
def test_a_store_lists_what_comes_next(tmp_path: Path) -> None:
    streams.tracks().frame.select("track_id", "artist").write_csv(tmp_path / "tracks.csv")
    streams.listens().frame.select("user_id", "track_id", "listened_at").write_csv(tmp_path / "listens.csv")
    store = tmp_path / "store"
    build(Inputs(tmp_path / "tracks.csv", tmp_path / "listens.csv"), store, quick_settings(), Silent(), strict=True)
    with_order = Recommender.open(store)
    listed = with_order.recommend_from_tracks(ASKED, 9, ordered=True).tracks
    assert listed[0].track_id == "a7-3"
    assert [track.track_id for track in with_order.recommend_from_tracks(ASKED, 9).tracks] != [
        track.track_id for track in listed
    ]
    current = Store(store).current()
    assert "following.json" in str(read_facts(current)), "its hash is checked with those of the others"
    order = with_order.model.order
    assert order is not None
    assert len(order.histories) == streams.N_USERS
    with_order.close()
