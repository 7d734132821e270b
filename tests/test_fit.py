"""The fit: every part from whatever there is, the same again from the same, and uploads encoded as its own tracks.

That planted tastes are met, cold tracks included, is held in ``contracts``.
"""

import sys
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix
from sklearn.preprocessing import normalize

from contracts import ids
from helpers.catalogues import quick_settings
from helpers.made import made_listens, made_tags, made_tracks
from recsys.cf.als import ALSSettings
from recsys.config import RunSettings
from recsys.content.metadata import sparse_features
from recsys.errors import DataError, NoSpaceError
from recsys.fit import fit
from recsys.hybrid.foldin import fold_in
from recsys.hybrid.validation import MIN_PAIRS
from recsys.recommender import Artefacts, Recommender
from recsys.types import Listens, Plays, Tags, Tracks
from recsys.util.progress import Silent

N, N_USERS, COLD = 24, 10, "t23"
KIND = np.arange(N) % 2


def settings(**hybrid: object) -> RunSettings:
    quick = quick_settings()
    return quick.model_copy(update={"hybrid": quick.hybrid.model_copy(update=hybrid)})


def named() -> Tracks:
    """24 tracks of two kinds, told by genre, artist and year."""
    return made_tracks(
        N,
        genres=[["rock"] if kind else ["folk", "calm"] for kind in KIND],
        artist=[f"Artist {kind}-{n % 4 // 2}" for n, kind in enumerate(KIND)],
        year=[1990 + 10 * int(kind) + n % 3 for n, kind in enumerate(KIND)],
    )


def heard_only() -> Tracks:
    """The same with a sound vector each and nothing else."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2, 5))[KIND] + 0.2 * rng.normal(size=(N, 5))
    return made_tracks(N, vector=vectors.astype(np.float32).tolist())


def listens(n_users: int = N_USERS) -> Listens:
    """Each user plays seven tracks of one kind; nobody plays t23."""
    rng = np.random.default_rng(1)
    pairs = []
    for user in range(n_users):
        own = np.flatnonzero(KIND[:-1] == user % 2)
        pairs += [(f"u{user}", f"t{item}", float(rng.integers(1, 5))) for item in rng.choice(own, 7, replace=False)]
    return made_listens(pairs)


def of_kind(tracks: list[str], kind: int) -> float:
    return float(np.mean([KIND[int(track[1:])] == kind for track in tracks]))


def fitted(tracks: Tracks, heard: Listens | None, tags: Tags | None = None, **hybrid: object) -> Recommender:
    return fit(tracks, heard, tags, settings(**hybrid))


# ---- the same again ----------------------------------------------------------------------------------------------


def arrays(recommender: Recommender) -> dict[str, np.ndarray]:
    model = recommender.model
    spaces = {f"{name}": space.vectors for name, space in model.spaces.items()}
    weights = {
        "weights": model.blend.weights(),
        "covariance": np.concatenate([c.ravel() for c in model.blend.covariances]),
    }
    return {"users": model.user_vectors, "items": model.item_vectors, **weights, **spaces}


@pytest.mark.slow
def test_the_same_inputs_and_seed_give_the_same_bits() -> None:
    one, again, other = (
        arrays(fit(named(), listens(), None, settings().model_copy(update={"seed": s}))) for s in (0, 0, 1)
    )
    for name, array in one.items():
        assert np.array_equal(array, again[name]), name
    assert not np.array_equal(one["items"], other["items"])


def test_inputs_are_not_written_to() -> None:
    tracks, heard, tags = named(), listens(), made_tags([("t0", "live", 2.0)])
    frames = [container.frame.clone() for container in (tracks, heard, tags)]
    fitted(tracks, heard, tags)
    for before, container in zip(frames, (tracks, heard, tags), strict=True):
        assert before.equals(container.frame)


# ---- one encoder for the fit and for uploads -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("make", [named, heard_only])
def test_a_cold_track_of_the_fit_stands_where_an_upload_would(make: Callable[[], Tracks]) -> None:
    tags = made_tags([("t23", "slow", 3.0), ("t1", "slow", 1.0), ("t2", "slow", 2.0)])
    recommender = fitted(make(), listens(), tags)
    artefacts: Artefacts = recommender.artefacts
    upload = Tracks(artefacts.tracks.frame.filter(pl.col("track_id") == COLD))
    vector = upload.frame["vector"][0]
    sound = None if vector is None else (np.zeros(1, np.int32), np.array([vector.to_list()], np.float32))
    tracks = artefacts.encoder.modalities(upload, tags, sound)
    content = artefacts.encoder.content.encode(tracks)
    found = artefacts.encoder.item_vectors(tracks, content, recommender.model.blend)
    np.testing.assert_allclose(found[0], recommender.model.item_vectors[23], atol=1e-4)
    space = recommender.model.spaces["content"]
    np.testing.assert_allclose(content[0], space.vectors[space.place(23)], atol=1e-5)  # type: ignore[call-overload]


def test_sound_is_standardised_over_the_catalogue() -> None:
    artefacts: Artefacts = fitted(heard_only(), None).artefacts
    sound = artefacts.encoder.modalities(heard_only(), None, (artefacts.sound.rows, artefacts.sound.vectors)).sound
    np.testing.assert_allclose(sound.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(sound.std(axis=0), 1, atol=1e-4)


def test_users_of_the_fit_fold_in_as_trained(tiny_fit: Recommender) -> None:
    model = tiny_fit.model
    for user in range(29):
        items = model.heard(user)
        plays = model.counts[[user]].data
        folded = fold_in(items, plays, model.item_vectors, model.blend)
        for part in model.blend.parts:
            if part.name != "lightfm":
                columns = slice(part.start, part.stop)
                np.testing.assert_allclose(folded[columns], model.user_vectors[user, columns], atol=1e-4)
    assert not model.has_plays[29]


def test_every_part_is_calibrated_for_every_user(tiny_fit: Recommender) -> None:
    model = tiny_fit.model
    played = np.unique(model.counts.indices)
    for part in model.blend.parts[:-1]:
        columns = slice(part.start, part.stop)
        scores = model.user_vectors[:29, columns] @ model.item_vectors[played, columns].T
        np.testing.assert_allclose(scores.std(axis=1), 1, rtol=1e-3)
    level = model.blend.parts[-1]
    assert (level.name, level.fold) == ("new", "level")
    assert (model.user_vectors[:, level.start] == 1).all()
    unplayed = np.setdiff1d(np.arange(len(model.items)), played)
    assert not model.item_vectors[played, level.start].any()
    assert (model.item_vectors[unplayed, level.start] == 1).all()


# ---- whatever there is -----------------------------------------------------------------------------------------------


def test_everything_there_is_gives_all_parts_and_spaces() -> None:
    both = Tracks(named().frame.with_columns(heard_only().frame["vector"]))
    recommender = fitted(both, listens())
    assert recommender.parts == ("als", "wide", "mapped", "lightfm", "labels", "content", "popularity")
    assert recommender.spaces == ["sound", "content", "taste", "hybrid"]
    durations = recommender.artefacts.durations
    assert set(durations) == {"lyrics", "als", "audio", "blend", "hybrid"}
    assert ids(recommender.similar("t4", 3, "sound"))[0] != "t4"


def test_a_catalogue_without_listens_knows_what_is_alike() -> None:
    recommender = fitted(named(), None)
    assert recommender.parts == ("content",)
    assert recommender.spaces == ["content", "hybrid"]
    assert of_kind(ids(recommender.similar("t4", 8)), 0) > 0.9
    assert of_kind(ids(recommender.recommend_from_tracks(["t5", "t7"], 8)), 1) > 0.9
    nobody = recommender.recommend("u0", 200)
    assert nobody.source == "popular"
    assert len(nobody.tracks) == N
    assert len(recommender.model.users) == 0
    assert recommender.audience("t0") == []


@pytest.mark.parametrize("heard", [None, made_listens([])])
def test_no_listens_and_an_empty_table_of_them_are_the_same(heard: Listens | None) -> None:
    assert np.array_equal(fitted(named(), heard).model.item_vectors, fitted(named(), None).model.item_vectors)


def test_a_catalogue_of_ids_and_listens_alone_has_taste_and_no_content() -> None:
    recommender = fitted(made_tracks(N), listens())
    assert recommender.parts == ("als", "wide", "lightfm", "popularity")
    assert recommender.spaces == ["taste", "hybrid"]
    hits = [of_kind(ids(recommender.recommend(f"u{user}", 3)), user % 2) for user in range(N_USERS)]
    assert np.mean(hits) > 0.9
    assert np.isfinite(recommender.score([f"u{user}" for user in range(N_USERS)], [COLD])).all()
    assert COLD in ids(recommender.recommend("u0", 200))


def test_a_track_of_which_nothing_is_known_is_like_no_other() -> None:
    recommender = fitted(made_tracks(N), listens())
    with pytest.raises(NoSpaceError, match=r"'t23'.*'hybrid'"):
        recommender.similar(COLD)
    assert COLD not in ids(recommender.similar("t4", 200))
    assert len(ids(recommender.similar("t4", 200))) == N - 2


def test_a_zero_vector_is_in_no_list_of_sounds() -> None:
    vectors = heard_only().frame["vector"].to_list()
    vectors[3] = [0.0] * 5
    recommender = fitted(made_tracks(N, vector=vectors), listens())
    assert "t3" not in ids(recommender.similar("t4", 200, "sound"))
    with pytest.raises(NoSpaceError, match=r"'t3'.*'sound'"):
        recommender.similar("t3", space="sound")


def test_vectors_alone_are_enough() -> None:
    alone = fitted(heard_only(), None)
    assert alone.spaces == ["sound", "content", "hybrid"]
    for space in alone.spaces:
        assert of_kind(ids(alone.similar("t4", 8, space)), 0) > 0.9
    recommender = fitted(heard_only(), listens())
    for user in range(N_USERS):
        found = ids(recommender.recommend(f"u{user}", 200))
        assert of_kind(found[:3], user % 2) > 0.6
        assert (found.index(COLD) < len(found) / 2) == (user % 2 == 1)


def test_some_tracks_may_lack_their_vector() -> None:
    vectors = heard_only().frame["vector"].to_list()
    vectors[2] = vectors[23] = None
    recommender = fitted(made_tracks(N, vector=vectors), listens())
    assert recommender.model.spaces["sound"].rows.tolist() == sorted(set(range(N)) - {2, 23})
    with pytest.raises(NoSpaceError, match=r"'t2'.*'sound'"):
        recommender.similar("t2", space="sound")
    assert np.isfinite(recommender.score(["u0"], ["t2", COLD])).all()


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("lyrics", [("rain and rain " if kind else "sun or moon ") + str(n) for n, kind in enumerate(KIND)]),
        ("year", [1990 + 20 * int(kind) for kind in KIND]),
        ("artist", [f"Artist {kind}" for kind in KIND]),
        ("genres", [[f"genre {kind}"] for kind in KIND]),
    ],
)
def test_any_one_kind_of_metadata_is_enough(column: str, values: list[object]) -> None:
    recommender = fitted(made_tracks(N, **{column: values}), None)
    assert recommender.spaces == ["content", "hybrid"]
    assert of_kind(ids(recommender.similar("t4", 6)), 0) > 0.9


def test_tags_alone_are_enough() -> None:
    tags = made_tags([(f"t{n}", ("loud", "soft")[kind], 1.0 + n) for n, kind in enumerate(KIND)])
    assert of_kind(ids(fitted(made_tracks(N), None, tags).similar("t4", 6)), 0) > 0.9


@pytest.mark.parametrize("heard", [None, made_listens([]), made_listens([], [("u0", "t1")])])
def test_nothing_usable_is_refused(heard: Listens | None) -> None:
    with pytest.raises(DataError, match="nothing usable in 24 tracks"):
        fitted(made_tracks(N), heard)


def test_dislikes_alone_bar_the_track_and_give_popular_ones() -> None:
    only = fitted(named(), made_listens([], [("u0", "t1")]))
    assert only.parts == ("content",)
    found = only.recommend("u0", 200)
    assert found.source == "popular"
    assert len(found.tracks) == N - 1
    assert "t1" not in ids(found)


# ---- settings --------------------------------------------------------------------------------------------------------


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)


def test_lightfm_can_be_left_out_and_leaves_by_itself_where_it_would_take_too_long() -> None:
    lightfm = settings().hybrid.lightfm
    off = fitted(named(), listens(), lightfm=lightfm.model_copy(update={"enabled": False}))
    assert off.parts == ("als", "wide", "mapped", "labels", "content", "popularity")
    told = Told()
    too_long = settings(lightfm=lightfm.model_copy(update={"max_pairs": 69}))  # there are 70
    assert fit(named(), listens(), None, too_long, progress=told).parts == off.parts
    assert any("lightfm.max_pairs = 69" in line for line in told.lines)


@pytest.mark.slow
def test_labels_are_near_the_cosines_of_what_is_known_and_can_be_left_out() -> None:
    quick = quick_settings()
    labels = quick.hybrid.labels.model_copy(update={"dim": 4096})
    recommender = fitted(named(), listens(), labels=labels)
    encoder = recommender.artefacts.encoder
    tracks = encoder.modalities(named(), None, None)
    found = encoder.labels(tracks)
    columns = normalize(sparse_features(tracks.metadata, encoder.content.vocabulary, artists=True))
    np.testing.assert_allclose(found @ found.T, (columns @ columns.T).toarray(), atol=0.08)
    assert np.ptp((columns @ columns.T).toarray()) > 0.5
    off = fitted(named(), listens(), labels=labels.model_copy(update={"enabled": False}))
    assert "labels" in recommender.parts
    assert "labels" not in off.parts


def test_given_weights_rank() -> None:
    quick = quick_settings()
    none = dict.fromkeys(("als", "wide", "mapped", "lightfm", "labels", "content"), 0.0)
    blend = quick.blend.model_copy(update={**none, "popularity": 1.0})
    recommender = fit(named(), listens(), None, quick.model_copy(update={"blend": blend}))
    assert recommender.model.blend.weights().max() == 1
    users = [f"u{user}" for user in range(N_USERS)]
    assert np.array_equal(recommender.rank(users, 5).items, recommender.rank(users, 5, part="popularity").items)
    assert of_kind(ids(recommender.similar("t4", 6)), 0) > 0.9  # tracks are alike nevertheless


def test_the_als_that_is_fitted_is_the_chosen_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def choose(kept: Plays, pairs: csr_matrix, base: ALSSettings, *_: object) -> ALSSettings:
        asked.append((kept, pairs))
        return base.model_copy(update={"n_factors": 5})

    monkeypatch.setattr(sys.modules["recsys.fit"], "choose_als", choose)
    parts = {part.name: part.stop - part.start for part in fitted(named(), listens(40)).model.blend.parts}
    [(kept, pairs)] = asked
    assert parts["als"] == 5
    assert parts["wide"] == parts["mapped"] != 5
    assert pairs.nnz >= MIN_PAIRS
    assert (kept.n_listeners[pairs.indices] > 0).all(), "of new tracks ALS says nothing"
    few = fitted(named(), listens(3))
    assert len(asked) == 1, "too few plays are held out to choose by"
    assert few.model.blend.parts[0].stop == 8


@pytest.mark.parametrize("share", [0.0, 0.999])
def test_weights_are_even_where_nothing_or_everything_is_held_out(share: float) -> None:
    quick = quick_settings()
    blend = quick.blend.model_copy(update={"validation_share": share})
    recommender = fit(named(), listens(1), None, quick.model_copy(update={"blend": blend}))
    parts = recommender.model.blend.parts
    assert [part.weight for part in parts] == [1.0] * 7 + [0.0], "new tracks are not raised"
    assert [part.new for part in parts] == [1.0] * 8


# ---- the smallest ----------------------------------------------------------------------------------------------------


def test_one_track_and_one_user() -> None:
    recommender = fitted(made_tracks(1, artist=["Ann"]), made_listens([("u0", "t0", 1.0)]))
    assert recommender.recommend("u0").tracks == []
    assert np.isfinite(recommender.score(["u0"], ["t0"])).all()
    assert ids(recommender.recommend("nobody")) == ["t0"]
    assert recommender.similar("t0", space="taste").tracks == []


def test_one_played_track_among_many() -> None:
    recommender = fitted(named(), made_listens([("u0", "t5", 2.0)]))
    found = recommender.recommend("u0", 200)
    assert len(found.tracks) == N - 1
    assert of_kind(ids(found)[:6], 1) > 0.9  # what is known of the track is all there is to go by
    assert np.abs([track.score for track in found.tracks]).max() < 100
    assert {track.reason_track_id for track in found.tracks} == {"t5"}
