"""The model as arrays: what is saved is what is loaded, and damage is told in one sentence."""

import mmap
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.catalogue.ids import IdMap
from recsys.errors import ArtefactError
from recsys.hybrid.blend import Blend, Part, join
from recsys.ranking.model import Model, SpaceVectors

N_USERS, N_ITEMS = 4, 6


def some_model() -> Model:
    rng = np.random.default_rng(0)
    counts = csr_matrix(np.array([[0, 2, 0, 0, 1, 0], [0] * 6, [3, 0, 0, 0, 0, 9], [0, 0, 1, 0, 0, 0]], np.float32))
    barred = csr_matrix(np.array([[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1], [0] * 6, [0] * 6], bool))
    items = rng.normal(size=(N_ITEMS, 2)).astype(np.float32)
    users = rng.normal(size=(N_USERS, 2)).astype(np.float32)
    parts = [
        Part("als", users, items, "solve", np.eye(2, dtype=np.float32), 0.5, confidence_scale=3.25),
        Part("content", users, items[:, ::-1], "mean"),
    ]
    weights, listeners = {"als": 2.0, "content": 0.5}, np.array([1, 1, 1, 0, 1, 1], np.int32)
    blend, user_vectors, item_vectors = join(parts, weights, listeners, {"als": 0.75})
    return Model(
        IdMap.of(["007", "b", "ü", ""], what="user"),
        IdMap.of([f"t{n}" for n in range(N_ITEMS)], what="track"),
        blend,
        user_vectors,
        item_vectors,
        counts,
        barred,
        {
            "taste": SpaceVectors(np.array([0, 3, 5], np.int32), items[[0, 3, 5]]),
            "sound": SpaceVectors(np.array([2], np.int32), items[[2], :1]),
        },
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    model = some_model()
    model.save(tmp_path / "arrays")
    loaded = Model.load(tmp_path / "arrays")
    assert loaded.users.all() == model.users.all() == ["007", "b", "ü", ""]
    assert loaded.items.all() == model.items.all()
    for name in ("user_vectors", "item_vectors"):
        assert np.array_equal(getattr(loaded, name), getattr(model, name))
        assert isinstance(getattr(loaded, name).base, mmap.mmap)
    for name in ("counts", "barred"):
        assert np.array_equal(getattr(loaded, name).toarray(), getattr(model, name).toarray())
        assert getattr(loaded, name).dtype == getattr(model, name).dtype
    assert set(loaded.spaces) == {"taste", "sound"}
    for space, known in model.spaces.items():
        assert loaded.spaces[space].rows.tolist() == known.rows.tolist()
        assert np.array_equal(loaded.spaces[space].vectors, known.vectors)
    assert loaded.blend.parts == model.blend.parts
    assert all(map(np.array_equal, loaded.blend.covariances, model.blend.covariances))
    gram, none = loaded.blend.grams
    assert gram is not None
    assert np.array_equal(gram, model.blend.grams[0])
    assert none is None
    assert [part.confidence_scale for part in loaded.blend.parts] == [3.25, 1.0]
    assert [part.new for part in loaded.blend.parts] == [0.75, 1.0]


def test_what_a_user_heard_and_barred(tmp_path: Path) -> None:
    some_model().save(tmp_path / "arrays")
    for model in (some_model(), Model.load(tmp_path / "arrays")):
        assert [model.heard(user).tolist() for user in range(N_USERS)] == [[1, 4], [], [0, 5], [2]]
        assert [model.barred_items(user).tolist() for user in range(N_USERS)] == [[0], [4, 5], [], []]
        assert model.has_plays.tolist() == [True, False, True, True]


def test_a_catalogue_without_users_is_saved_too(tmp_path: Path) -> None:
    nothing = csr_matrix((0, 2), dtype=np.float32)
    model = Model(
        IdMap.of([], what="user"),
        IdMap.of(["a", "b"], what="track"),
        Blend((), (), ()),
        np.zeros((0, 0), np.float32),
        np.zeros((2, 0), np.float32),
        nothing,
        nothing.astype(bool),
        {},
    )
    model.save(tmp_path / "arrays")
    loaded = Model.load(tmp_path / "arrays")
    assert loaded.items.all() == ["a", "b"]
    assert len(loaded.users) == 0
    assert loaded.has_plays.shape == (0,)
    assert loaded.item_vectors.shape == (2, 0)


def saved_files() -> list[str]:
    ids = [
        f"{who}_ids.{part}.npy" for who in ("user", "track") for part in ("text", "offsets", "hashes", "order", "what")
    ]
    csr = [f"{name}_{part}.npy" for name in ("counts", "barred") for part in ("data", "indices", "indptr")]
    spaces = [f"{space}_{part}.npy" for space in ("taste", "sound") for part in ("rows", "vectors")]
    blend = ["blend_als_covariance.npy", "blend_content_covariance.npy", "blend_als_gram.npy", "blend.json"]
    return [*ids, *csr, *spaces, *blend, "user_vectors.npy", "item_vectors.npy"]


def test_every_file_is_named_here(tmp_path: Path) -> None:
    some_model().save(tmp_path / "arrays")
    assert sorted(file.name for file in (tmp_path / "arrays").iterdir()) == sorted(saved_files())


@pytest.mark.parametrize("damage", ["missing", "empty", "cut short", "not an array"])
@pytest.mark.parametrize("name", saved_files())
def test_a_damaged_folder_is_told(name: str, damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    some_model().save(folder)
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage != "missing":
        (folder / name).write_bytes({"empty": b"", "cut short": content[:-1], "not an array": b"abc" * 99}[damage])
    with pytest.raises(ArtefactError, match="again") as caught:
        Model.load(folder)
    assert "\n" not in str(caught.value)


def test_arrays_that_disagree_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    some_model().save(folder)
    np.save(folder / "counts_indptr.npy", np.zeros(3, np.int32))
    with pytest.raises(ArtefactError, match="counts has 2 rows, expected 4"):
        Model.load(folder)
    with pytest.raises(ArtefactError, match="nowhere"):
        Model.load(tmp_path / "nowhere")


def test_a_saved_folder_is_not_written_over(tmp_path: Path) -> None:
    some_model().save(tmp_path / "arrays")
    with pytest.raises(FileExistsError):
        some_model().save(tmp_path / "arrays")


def test_an_item_is_found_in_a_space() -> None:
    space = SpaceVectors(np.array([2, 5, 9], np.int32), np.zeros((3, 1), np.float32))
    assert [space.place(item) for item in (2, 9, 0, 3, 10)] == [0, 2, None, None, None]
