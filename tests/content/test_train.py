"""Training the fusion: planted genres are learned, the best epoch is kept, and seeds decide every bit."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from helpers.made import made_tracks
from recsys.content import train
from recsys.content.fusion import FusionSettings, Modalities
from recsys.content.lyrics import LyricsReader, LyricsSettings, learn_lyrics
from recsys.content.metadata import MetadataSettings, Vocabulary, encode, learn_vocabulary
from recsys.content.tasks import Targets, targets_of
from recsys.content.train import ContentModel, ContentSettings, fit_content, modalities_of
from recsys.types import Float32, Tracks
from recsys.util.progress import Silent

LYRICS = LyricsSettings(n_pieces=512, max_tokens=4, embedding=4, hidden=4)
READER = LyricsReader(LYRICS, b"", 0)  # nobody sings here
SETTINGS = ContentSettings(
    fusion=FusionSettings(dim=8, tower=6, hidden=16, drop_modality=0.2, lyrics=LYRICS),
    epochs=40,
    patience=40,
    batch=16,
    learning_rate=0.01,
)
N = 61  # the last track has sound alone


def planted() -> tuple[Tracks, Modalities, Vocabulary]:
    """Three genres, of which the artist and the sound tell too."""
    rng = np.random.default_rng(0)
    genre = np.arange(N) % 3
    names = [[name] for name in np.array(["ambient", "metal", "jazz"])[genre]]
    artists: list[object] = [f"Artist {g}-{n % 2}" for n, g in enumerate(genre)]
    names[-1], artists[-1] = [], None
    tracks = made_tracks(N, genres=names, artist=artists)
    vocabulary = learn_vocabulary(tracks, None, MetadataSettings())
    sound = (2 * np.eye(3)[genre] + rng.normal(0, 0.5, (N, 3))).astype(np.float32)
    given = np.arange(N, dtype=np.int32), sound
    return tracks, modalities_of(given, np.zeros((N, 1), np.int32), encode(tracks, None, vocabulary)), vocabulary


def fitted(settings: ContentSettings = SETTINGS, seed: int = 0, targets: Targets | None = None) -> ContentModel:
    tracks, modalities, vocabulary = planted()
    return fit_content(
        modalities, targets or targets_of(tracks, None, None), vocabulary, READER, settings, seed, Silent()
    )


def contrast(vectors: Float32) -> float:
    """Mean cosine to tracks of the same genre, less that to others."""
    cosine, same = vectors @ vectors.T, np.equal.outer(np.arange(len(vectors)) % 3, np.arange(len(vectors)) % 3)
    np.fill_diagonal(same, False)
    off = ~same & ~np.eye(len(vectors), dtype=bool)
    return float(cosine[same].mean() - cosine[off].mean())


@pytest.mark.slow
def test_planted_genres_are_learned_and_heard_from_sound_alone() -> None:
    _, modalities, _ = planted()
    model = fitted()
    vectors = model.encode(modalities)
    untrained = fitted(SETTINGS.model_copy(update={"epochs": 0})).encode(modalities)
    assert contrast(vectors) > contrast(untrained) + 0.3
    assert model.trained_on == ("genre", "artist")
    assert list(model.curve[0]) == ["epoch", "held-out cost", "training cost", "seconds"]
    assert model.curve[0]["training cost"] == pytest.approx(
        1.5, abs=0.4
    )  # knowing nothing: 1 for genre, 0.5 for artist
    assert model.curve[-1]["training cost"] < 0.7
    own = np.arange(N - 1) % 3 == (N - 1) % 3
    to_others = vectors[:-1] @ vectors[-1]
    assert to_others[own].mean() > to_others[~own].mean() + 0.3
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_seed_decides_every_bit() -> None:
    _, modalities, _ = planted()
    quick = SETTINGS.model_copy(update={"epochs": 3})
    one, again, other = (fitted(quick, seed).encode(modalities) for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    start, other_start = (fitted(SETTINGS.model_copy(update={"epochs": 0}), seed).encode(modalities) for seed in (0, 1))
    assert not np.array_equal(start, other_start)


def test_factors_are_a_task_where_there_are_listens() -> None:
    tracks, modalities, _ = planted()
    rng = np.random.default_rng(1)
    bare = Tracks(
        tracks.frame.with_columns(genres=made_tracks(N).frame["genres"], artist=made_tracks(N).frame["artist"])
    )
    factors = (np.eye(3)[np.arange(N) % 3] + rng.normal(0, 0.1, (N, 3))).astype(np.float32)
    model = fitted(targets=targets_of(bare, factors, np.full(N, 9, np.int32)))
    assert model.trained_on == ("factors",)
    assert contrast(model.encode(modalities)) > 0.5


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)


def test_without_labels_the_network_stays_at_its_start_and_says_so() -> None:
    _, modalities, vocabulary = planted()
    told = Told()
    nothing = targets_of(made_tracks(N), None, None)
    model = fit_content(modalities, nothing, vocabulary, READER, SETTINGS, 0, told)
    assert model.trained_on == ()
    assert model.curve == []
    assert len(told.lines) == 1
    vectors = model.encode(modalities)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert contrast(vectors) > 0  # a random projection keeps alike tracks alike


def weights_after(monkeypatch: pytest.MonkeyPatch, epochs: int, patience: int, costs: list[float]) -> torch.Tensor:
    monkeypatch.setattr(train, "_cost", lambda *_: costs.pop(0))
    settings = SETTINGS.model_copy(update={"epochs": epochs, "patience": patience})
    return fitted(settings).network.dense[0].weight.detach()


def test_the_best_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    after_two = weights_after(monkeypatch, 2, 9, [2.0, 1.0])
    costs = [2.0, 1.0, 1.5, 1.5, 0.1]
    assert torch.equal(weights_after(monkeypatch, 9, 2, costs), after_two)
    assert costs == [0.1]  # stopped before it
    assert not torch.equal(weights_after(monkeypatch, 5, 3, [2.0, 1.0, 1.5, 1.5, 0.1]), after_two)


def test_held_out_tracks_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, judged = set(), set()
    batches, cost = train._batches, train._cost

    def seen_batches(rows: np.ndarray, size: int) -> object:
        trained.update(rows.tolist())
        return batches(rows, size)

    def seen_cost(network: object, heads: object, tracks: object, rows: np.ndarray, size: int) -> float:
        judged.update(rows.tolist())
        return 0.0

    monkeypatch.setattr(train, "_batches", seen_batches)
    monkeypatch.setattr(train, "_cost", seen_cost)
    fitted(SETTINGS.model_copy(update={"epochs": 2, "train_tracks": 40}))
    assert len(judged) == 4
    assert len(trained) == 36
    assert not trained & judged
    monkeypatch.setattr(train, "_cost", cost)


def test_whole_modalities_are_dropped_while_training(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, had = [], []
    forward = train.Fusion.forward

    def seen(self: train.Fusion, tracks: Modalities, present: np.ndarray | None = None) -> torch.Tensor:
        if present is not None:
            kept.append(present)
            had.append(tracks.present())
        return forward(self, tracks, present)

    monkeypatch.setattr(train.Fusion, "forward", seen)
    fusion = SETTINGS.fusion.model_copy(update={"drop_modality": 0.25})
    fitted(SETTINGS.model_copy(update={"epochs": 20, "fusion": fusion}))
    looked_at, known = np.vstack(kept), np.vstack(had)
    assert not (looked_at & ~known).any()
    assert looked_at[known].mean() == pytest.approx(0.75, abs=0.03)


def test_the_callers_threads_and_one_track_catalogues_are_left_in_peace() -> None:
    n_threads = torch.get_num_threads()
    tracks, modalities, vocabulary = planted()
    few = np.array([0])
    targets = targets_of(tracks, None, None).take(few)
    model = fit_content(modalities.take(few), targets, vocabulary, READER, SETTINGS, 0, Silent())
    assert np.isfinite(model.encode(modalities)).all()
    assert torch.get_num_threads() == n_threads


def saved(folder: Path, model: ContentModel) -> Path:
    from recsys.hybrid.encoder import Encoder, Scaler
    from recsys.store.weights import save_models

    scaler = Scaler(np.zeros(3, np.float32), np.ones(3, np.float32))
    save_models(folder, Encoder(model, scaler, np.ones(8, np.float32), None, None, unplayed=0.5), None)
    return folder


def test_an_encoder_read_from_disk_encodes_to_the_bit(tmp_path: Path) -> None:
    from recsys.store.weights import load_encoder

    _, modalities, _ = planted()
    model = fitted(SETTINGS.model_copy(update={"epochs": 2}))
    loaded = load_encoder(saved(tmp_path / "models", model))
    assert np.array_equal(loaded.content.encode(modalities), model.encode(modalities))
    assert loaded.content.trained_on == model.trained_on
    assert [row["epoch"] for row in loaded.content.curve] == [1, 2]
    assert loaded.content.curve == model.curve
    assert loaded.factor_map is loaded.lightfm is None
    assert loaded.unplayed == 0.5


def sung() -> tuple[ContentModel, pl.Series]:
    """A model of tracks of which the lyrics alone are known, and tell the genre."""
    words = ("rain falls on the river", "fire and steel and thunder", "midnight saxophone blues")
    tracks, _, _ = planted()
    texts = pl.Series([f"{words[n % 3]}\n{words[n % 3]} number {n}" for n in range(N)])
    bare = made_tracks(N)
    vocabulary = learn_vocabulary(bare, None, MetadataSettings())
    reader = learn_lyrics(texts, LYRICS, Silent())
    modalities = modalities_of(None, reader.read(texts), encode(bare, None, vocabulary))
    return fit_content(modalities, targets_of(tracks, None, None), vocabulary, reader, SETTINGS, 0, Silent()), texts


@pytest.mark.slow
def test_genres_are_learned_from_lyrics_and_the_reader_goes_with_the_model(tmp_path: Path) -> None:
    from recsys.errors import ArtefactError
    from recsys.store.weights import load_encoder

    model, texts = sung()
    folder = saved(tmp_path / "models", model)
    content = load_encoder(folder).content
    bare = made_tracks(N)

    def vectors(of: ContentModel, lyrics: pl.Series) -> Float32:
        metadata = encode(bare, None, of.vocabulary)
        return of.encode(modalities_of(None, of.reader.read(lyrics), metadata))

    assert np.array_equal(vectors(content, texts), vectors(model, texts))
    assert contrast(vectors(content, texts)) > 0.5
    upload = pl.Series(["RAIN on a river, an unheard song"] + [None] * (N - 1))
    to_others = vectors(content, texts) @ vectors(content, upload)[0]
    genre = np.arange(N) % 3
    assert to_others[genre == 0].mean() > to_others[genre != 0].mean() + 0.3
    assert not vectors(content, upload)[1:].any()
    whole = (folder / "content" / "lyrics.spm").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no model"):
        (folder / "content" / "lyrics.spm").write_bytes(damaged)
        with pytest.raises(ArtefactError, match="build again"):
            load_encoder(folder)
