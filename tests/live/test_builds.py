"""Nothing acknowledged is lost to a build or a rollback, and nothing deleted comes back by one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.catalogues import AudioCatalogue, TinyCatalogue, clip, quick_settings
from helpers.command import run
from helpers.live_store import folded, heard, listed, opened
from helpers.serve_process import eventually
from helpers.stores import copied, rows
from pipelines import publish as publishing
from pipelines.build import Inputs, build
from recsys.errors import ArtefactError
from recsys.eventlog.events import Listened
from recsys.eventlog.store import open_live
from recsys.live.add_track import NewTrack, add_track
from recsys.live.catchup import catch_up
from recsys.live.rollback import rollback
from recsys.recommender import Recommender
from recsys.store.generation import Store
from recsys.store.record import Record
from recsys.util.progress import Silent


def rebuilt(catalogue: TinyCatalogue | Inputs, store: Path) -> Path:
    inputs = catalogue if isinstance(catalogue, Inputs) else Inputs(catalogue.tracks, catalogue.listens)
    build(inputs, store, quick_settings(), Silent(), strict=True)
    return Store(store).current()


def rolled_back(store: Path, generation: Path) -> None:
    assert rollback(store, generation.name) == generation.name


def plays(store: Path, user: str) -> dict[str, float]:
    model = Recommender.open(store).model
    counts = model.counts[model.users.row(user)]
    return dict(zip(model.items.ids(counts.indices), counts.data.tolist(), strict=True))


@pytest.mark.slow
def test_builds_twice_with_a_rollback_between_and_nothing_is_missing(
    store: Path, tiny_catalogue: TinyCatalogue
) -> None:
    first, before = Store(store).current(), Recommender.open(store)
    base = plays(store, "u0")
    with opened(store) as live:
        live.record([*heard("u0", "t2", "t5"), *heard("new", "t1", "t4"), *heard("u1", "t0")])
        live.record([Listened("u4", "t2", disliked=True)])
        live.delete_user("u7")
        live.delete_track("t8")
        lists = {user: listed(live, user) for user in ("u0", "new", "u1", "u4")}
    second = rebuilt(tiny_catalogue, store)
    assert plays(store, "u0") == base | {"t2": 1, "t5": 1}
    assert plays(store, "new") == {"t1": 1, "t4": 1}
    model = Recommender.open(store).model
    assert model.items.id(int(model.barred_items(model.users.row("u4"))[0])) == "t2"
    assert model.users.find(["u7"])[0] == -1
    assert model.items.find(["t8"])[0] == -1
    assert json.loads((second / "meta.json").read_text())["last_live_number"] == 8
    with opened(store) as live:
        assert live.list_of("u0") is None, "the build knows it all"
        live.record([*heard("u0", "t11"), *heard("newer", "t2")])
        assert not {"t2", "t5", "t11"} & set(listed(live, "u0"))
    rolled_back(store, first)
    with opened(store) as live:
        assert live.generation == first.name
        assert listed(live, "u0") == [t for t in folded(before, "u0", "t2", "t5", "t11") if t != "t8"]
        assert listed(live, "newer") == [t for t in folded(before, None, "t2") if t != "t8"]
        assert {user: listed(live, user) for user in ("new", "u1", "u4")} | {"u0": lists["u0"]} == lists
        assert live.is_gone_user("u7")
        live.record(heard("u7", "t3"))
        assert listed(live, "u7") == [t for t in folded(before, None, "t3") if t != "t8"]
        live.record(heard("u0", "t14"))
    rebuilt(tiny_catalogue, store)
    assert plays(store, "u0") == base | {"t2": 1, "t5": 1, "t11": 1, "t14": 1}
    assert plays(store, "u7") == {"t3": 1}, "what came after the deletion counts"
    assert plays(store, "newer") == {"t2": 1}
    rolled_back(store, second)
    with opened(store) as live:
        assert not {"t2", "t5", "t11", "t14", "t8"} & set(listed(live, "u0"))
        assert "t3" not in listed(live, "u7")


@pytest.mark.slow
def test_a_listen_while_a_build_ends_is_in_the_new_lists(
    store: Path, tiny_catalogue: TinyCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written by a worker of the old generation: before the lists catch up, and after."""
    renamed = Store.publish
    with opened(store) as old:

        def before(*all_: object) -> None:
            old.record(heard("u0", "t2"))
            catch_up(*all_)

        def after(self: Store, partial: Path) -> Path:
            old.record(heard("u3", "t5"))
            folder = renamed(self, partial)
            old.record(heard("u6", "t8"))
            return folder

        monkeypatch.setattr(publishing, "catch_up", before)
        monkeypatch.setattr(Store, "publish", after)
        rebuilt(tiny_catalogue, store)
        with opened(store) as new:
            assert new.generation != old.generation
            for user, track in (("u0", "t2"), ("u3", "t5"), ("u6", "t8")):
                assert track not in listed(new, user)
                assert set(listed(new, user)) == {t for t in listed(old, user) if t != track}
            old.record(heard("u9", "t2"))
            assert eventually(lambda: new.list_of("u9") is not None), "who has moved follows a worker that has not"
            assert "t2" not in listed(new, "u9")


@pytest.mark.slow
def test_events_that_the_table_has_by_now_are_not_counted_twice(
    store: Path, tiny_catalogue: TinyCatalogue, tmp_path: Path
) -> None:
    at = "2024-05-06T07:08:09+00:00"
    with opened(store) as live:
        live.record([Listened("u0", "t2", at=at), Listened("u0", "t5", at=at)])
    listens = Path(shutil.copy(tiny_catalogue.listens, tmp_path / "listens.csv"))
    with listens.open("a") as file:
        file.write(f"u0,t2,{at},0,0\n")
    rebuilt(Inputs(tiny_catalogue.tracks, listens), store)
    found = plays(store, "u0")
    assert (found["t2"], found["t5"]) == (1, 1)


@pytest.mark.slow
def test_listens_are_enough_where_there_is_no_table_of_them(tiny_catalogue: TinyCatalogue, tmp_path: Path) -> None:
    store = tmp_path / "store"
    rebuilt(Inputs(tiny_catalogue.tracks), store)
    with opened(store) as live:
        live.record([*heard("a", "t1", "t4"), *heard("b", "t0", "t3", "t6")])
        assert live.list_of("a") is not None
    rebuilt(Inputs(tiny_catalogue.tracks), store)
    assert plays(store, "b") == {"t0": 1, "t3": 1, "t6": 1}


@pytest.mark.slow
def test_old_generations_that_go_take_their_lists_with_them(store: Path, tiny_catalogue: TinyCatalogue) -> None:
    with opened(store) as live:
        live.record(heard("u0", "t2"))
        first = live.generation
    for _ in range(3):
        rebuilt(tiny_catalogue, store)
    with open_live(Store(store).live) as bare, bare.reading() as reading:
        assert first not in reading.generations()
        assert not [key for name in ("lists", "tastes", "heard") for key, _ in reading.pairs(name)]
        assert reading.last_seq() == 1


@pytest.mark.slow
def test_a_full_disk_at_the_end_of_a_build_leaves_the_old_generation(
    store: Path, tiny_catalogue: TinyCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = Store(store).current()

    def full(*_: object) -> None:
        raise ArtefactError("the live store failed: No space left on device; nothing was changed")

    monkeypatch.setattr(publishing, "catch_up", full)
    with pytest.raises(ArtefactError, match="No space left"):
        rebuilt(tiny_catalogue, store)
    assert Store(store).current() == current
    assert Store(store).names() == [current.name]


@pytest.mark.slow
def test_uploads_listens_and_deletions_through_builds_and_rollbacks(
    audio_store: Path, audio_catalogue: AudioCatalogue, tmp_path: Path
) -> None:
    store = copied(audio_store, tmp_path)
    first = Store(store).current()
    for n, name in enumerate(("one.wav", "two.flac")):
        (tmp_path / name).write_bytes(clip(name, 60 + n))
    with opened(store) as live:  # as a server would, with the file open in this process
        added = add_track(store, tmp_path / "one.wav", NewTrack("one", genre="jazz"))
        assert added.users_reached == 5
        assert live.uploads().track_ids == ("one",)
        assert all("one" in listed(live, f"v{n}") for n in range(5))
        live.record([*heard("v0", "one"), *heard("new", "one", "s1")])
        assert "one" not in listed(live, "v0")
        assert "one" not in listed(live, "new")
    second = rebuilt(audio_catalogue.inputs, store)
    assert plays(store, "new") == {"one": 1, "s1": 1}
    assert rows(store, "SELECT plays, is_cold FROM tracks WHERE track_id = 'one'") == [(2.0, False)]
    ran = run("add", tmp_path / "two.flac", "--store", store, "--track-id", "two")
    assert (ran.status, ran.err) == (0, "")
    rolled_back(store, first)
    with opened(store) as live:
        assert live.uploads().track_ids == ("one", "two")
        assert live.uploads().n_shown == 2, "the second was embedded under the older generation too"
        assert "two" in listed(live, "v1")
        assert "one" in listed(live, "v1")
        assert "one" not in listed(live, "v0")
        live.delete_track("one")
        assert sorted(path.name for path in (store / "uploads").iterdir())[0].endswith(".flac")
    again = add_track(store, tmp_path / "one.wav", NewTrack(title="Once more"))
    assert (again.known, again.track_id.startswith("upload-")) == (False, True)
    third = rebuilt(audio_catalogue.inputs, store)
    assert {row[0] for row in rows(store, "SELECT track_id FROM tracks")} == {
        *(f"s{n}" for n in range(8)), "two", again.track_id,
    }  # fmt: skip
    rolled_back(store, second)
    recommender = Recommender.open(store)
    assert {t.track_id for t in recommender.recommend("v1", 200).tracks} & {"one", "two", again.track_id} == {
        "two", again.track_id,
    }  # fmt: skip
    assert third.name in Store(store).names()


@pytest.mark.slow
def test_a_varied_store_keeps_its_variety(tiny_catalogue: TinyCatalogue, tmp_path: Path) -> None:
    settings = quick_settings()
    varied = settings.model_copy(update={"lists": settings.lists.model_copy(update={"max_per_artist": 2})})
    build(Inputs(tiny_catalogue.tracks, tiny_catalogue.listens), tmp_path / "store", varied, Silent())
    with opened(tmp_path / "store") as live:
        live.record(heard("u0", "t2", "t5"))
        record = Record(live.list_of("u0") or b"")
        artists = Recommender.open(tmp_path / "store").attributes.artists[record.rows]
        assert record.n == 12
        assert np.bincount(artists).max() == 2
