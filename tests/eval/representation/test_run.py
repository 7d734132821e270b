"""The protocol from a made catalogue to its report: what reaches a fit, what survives a kill, what the command says."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from eval.representation.distort import CONDITIONS, Distorted, check_conditions
from eval.representation.figures import FIGURES, FoldValues
from eval.representation.kept import KeptFolds
from eval.representation.map import draw_map, on_a_plane
from eval.representation.mfcc import fit_mfcc, mfcc_statistics
from eval.representation.models import Fitted, fits_of, network_settings
from eval.representation.run import Tools, represent
from eval.representation.settings import NETWORKS, RepresentationSettings
from eval.representation.table import representation_table
from eval.run import EvaluationSettings, evaluate
from helpers.audio_files import encoded, melody
from helpers.catalogues import QUICK
from helpers.command import run
from helpers.made import made_listens, made_tags, made_tracks
from helpers.tastes import RecordingFit, planted
from helpers.tastes import catalogue as listened_catalogue
from recsys.audio.augment import as_mp3
from recsys.audio.sample import ClipSample
from recsys.audio.settings import AudioSettings, LogMelSettings
from recsys.config import RunSettings
from recsys.errors import DataError
from recsys.store.generation import Store
from recsys.types import Clip, Int32, Tags, Tracks
from recsys.util.progress import Silent

RATE = 16_000
N_TRACKS = 24
SETTINGS = RepresentationSettings(n_folds=3, min_tag_tracks=3)
AUDIO = AudioSettings()


def made_clip(row: int) -> Clip:
    """Half a second whose sound tells the genre (pitch) and the artist (a second tone), and a little of the track."""
    t = np.arange(RATE // 2) / RATE
    hz = (200.0, 900.0, 2500.0)[row % 3], 3000 + 400 * (row % 8), 5000 + 50 * row
    tones = [0.3 * np.sin(2 * np.pi * f * t) for f in hz]
    noise = 0.02 * np.random.default_rng(row).standard_normal(len(t))
    return Clip(np.clip(sum(tones) + noise, -1, 1).astype(np.float32), RATE, 0.5)


def catalogue(n: int = N_TRACKS) -> Tracks:
    """Three genres and eight artists, each with three tracks; the last track's artist is unknown."""
    return made_tracks(
        n,
        path=[f"/music/{row}.wav" for row in range(n)],
        artist=[f"artist {row % 8}" if row < n - 1 else None for row in range(n)],
        genres=[[("low", "middle", "high")[row % 3]] for row in range(n)],
    )


def tags() -> Tags:
    return made_tags((f"t{row}", "bright", 1.0) for row in range(2, N_TRACKS, 3))


class Fake:
    """Reads made clips, and fits a network that is MFCC statistics; keeps what each fit was given."""

    def __init__(self, names: Sequence[str] = ("fake",)) -> None:
        self.given: list[tuple[Tracks, Tags | None, list[bytes]]] = []
        self.tools = Tools(self.read, dict.fromkeys(names, self.fit))

    def read(
        self, paths: Sequence[tuple[int, Path]], settings: AudioSettings, scratch: Any, progress: Any
    ) -> tuple[Int32, ClipSample]:
        clips = ClipSample(scratch, RATE)
        rows = [row for row, path in paths if path.stem != "5"]  # one does not decode
        for row, path in paths:
            if row in rows:
                clips.append(made_clip(int(path.stem)))
        return np.array(rows, np.int32), clips

    def fit(self, clips: Sequence[Clip], tracks: Tracks, tags: Tags | None, progress: Any) -> Fitted:
        self.given.append((tracks, tags, [clip.samples.tobytes() for clip in clips]))
        return Fitted(fit_mfcc(clips, LogMelSettings()).embed, 7, "a fake")


def judged(out: Path, fake: Fake | None = None, **changes: Any) -> Any:
    given: dict[str, Any] = {"n_resamples": 100, "out": out, "progress": Silent(), "tools": (fake or Fake()).tools}
    return represent(catalogue(), tags(), AUDIO, SETTINGS, **(given | changes))


@dataclass(frozen=True)
class Once:
    """One run over two networks, which several tests look at."""

    found: Any
    fake: Fake
    out: Path
    remembered: list[str]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    fake, out, log = Fake(), tmp_path_factory.mktemp("once"), []

    @contextmanager
    def remembered() -> Iterator[None]:
        log.append("begin")
        yield
        log.append("end")

    def fit(*given: Any) -> Fitted:
        log.append("fit")
        return fake.fit(*given)

    found = judged(out, fake, tools=Tools(fake.read, {"fake": fit}, remembered))
    return Once(found, fake, out, log)


def test_a_sound_that_tells_genre_and_artist_is_judged_so(once: Once) -> None:
    found = once.found
    value = {(row["segment"], row["metric"]): row["value"] for row in found.figures.to_dicts()}
    for probe in ("logistic", "lda", "svm", "knn"):
        assert value[probe, "genre_accuracy"] > 0.8
    assert value["all", "same_genre"] > 0.6
    assert value["tags", "roc_auc"] > 0.9
    assert value["gain-6db", "recall"] == 1
    assert {row.segment for row in FIGURES} <= {segment for segment, _ in value}
    figures = found.figures
    assert set(figures["split"]) == {"representation"}
    assert figures.unique(["model", "split", "segment", "metric", "k"]).height == figures.height
    assert (figures["ci_low"] <= figures["value"] + 1e-9).all()
    assert (figures["ci_high"] >= figures["value"] - 1e-9).all()
    assert set(figures.filter(metric="recall")["n_users"]) == {N_TRACKS - 1}, "of all that decode"
    assert set(figures.filter(metric="same_artist")["n_users"]) == {N_TRACKS - 2}, "one has no artist"
    assert any("1 files do not decode" in note for note in found.notes)
    assert found.networks["fake"]["n_parameters"] == 7
    assert found.networks["fake"]["embed_ms"] > 0
    assert {"map.png", "map.svg"} <= {path.name for path in once.out.iterdir()}


def test_nothing_of_a_held_out_artist_reaches_a_fit(once: Once) -> None:
    fake, audible = once.fake, catalogue().frame.filter(pl.col("track_id") != "t5")
    sound = {kept_in_16_bits(row): f"t{row}" for row in range(N_TRACKS)}
    *folds, of_map = fake.given
    assert len(folds) == SETTINGS.n_folds
    held_out_ever: list[str] = []
    for tracks, given_tags, samples in folds:
        ids = tracks.frame["track_id"].to_list()
        assert [sound[each] for each in samples] == ids, "the clips are those of the tracks"
        assert set(given_tags.frame["track_id"]) <= set(ids)
        held_out = audible.filter(~pl.col("track_id").is_in(ids))
        assert not set(held_out["artist"].drop_nulls()) & set(tracks.frame["artist"].drop_nulls())
        held_out_ever += held_out["track_id"].to_list()
    assert sorted(held_out_ever) == sorted(audible["track_id"].to_list()), "each track is held out once"
    assert len(of_map[0]) == N_TRACKS - 1


def kept_in_16_bits(row: int) -> bytes:
    rounded = np.round(np.clip(made_clip(row).samples, -1, 1) * 32_767).astype("<i2")
    return (rounded.astype(np.float32) / np.float32(32_767)).tobytes()


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(once: Once, tmp_path: Path) -> None:
    class Killed(Fake):
        def fit(self, *given: Any) -> Fitted:
            if len(self.given) == 2:
                raise KeyboardInterrupt
            return super().fit(*given)

    with pytest.raises(KeyboardInterrupt):
        judged(tmp_path, Killed())
    (damaged, _) = sorted((tmp_path / "representation.partial").rglob("fake-*.npz"))
    damaged.write_bytes(b"PK")
    again = Fake()
    found = judged(tmp_path, again)
    assert len(again.given) == 2 + 1, "the damaged fold, the missing one, the map"
    assert found.figures.equals(once.found.figures)


def test_what_was_kept_counts_for_the_same_inputs_alone(tmp_path: Path) -> None:
    values = FoldValues(
        *(np.arange(2, dtype=np.int32), np.full((2, len(FIGURES)), np.nan)),
        np.zeros((2, 3), np.float32),
        {"label": "é"},
    )
    KeptFolds(tmp_path, {"seed": 1}).put("net", 0, values)
    kept = KeptFolds(tmp_path, {"seed": 1}).get("net", 0)
    assert kept is not None
    np.testing.assert_array_equal(kept.values, values.values)
    assert (kept.tag_scores.shape, kept.facts) == ((2, 3), {"label": "é"})
    assert KeptFolds(tmp_path, {"seed": 2}).get("net", 0) is None
    assert KeptFolds(tmp_path, {"seed": 1}).get("net", 1) is None


def test_features_are_remembered_while_networks_are_fitted(once: Once) -> None:
    assert once.remembered == ["begin", "fit", "fit", "fit", "fit", "end"]


@pytest.mark.slow
def test_given_vectors_are_judged_without_sound(tmp_path: Path) -> None:
    vectors = [[float(row % 3 == genre) + 0.01 * row for genre in range(3)] for row in range(N_TRACKS)]
    frame = catalogue().frame.with_columns(vector=pl.Series(vectors, dtype=pl.List(pl.Float32)))
    found = represent(
        *(Tracks(frame), None, AUDIO, SETTINGS), n_resamples=100, out=tmp_path, progress=Silent(), tools=Fake().tools
    )
    value = {(row["segment"], row["metric"]): row["value"] for row in found.figures.to_dicts()}
    assert set(found.figures["model"]) == {"given"}
    assert value["all", "same_genre"] == pytest.approx(0.7), "seven other artists' tracks are of the genre"
    assert not [metric for _, metric in value if metric == "recall"]
    assert (tmp_path / "map.png").exists()


def test_what_cannot_be_judged_is_said_before_anything_is_read(tmp_path: Path) -> None:
    fake = Fake()
    for tracks, settings, reason in (
        (made_tracks(5), SETTINGS, "none of 5 tracks has audio or a vector"),
        (catalogue(), RepresentationSettings(n_folds=10), "24 tracks of 9 artists cannot be parted into 10 folds"),
    ):
        with pytest.raises(DataError, match=reason):
            represent(tracks, None, AUDIO, settings, n_resamples=100, out=tmp_path, progress=Silent(), tools=fake.tools)
    with pytest.raises(DataError, match=r"band of 300-3400 Hz|no sample rate"):
        check_conditions(6000)
    assert not fake.given


def test_more_tracks_than_the_cap_are_drawn(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"max_tracks": 12})
    fake = Fake()
    found = represent(
        *(catalogue(), None, AUDIO, settings), n_resamples=100, out=tmp_path, progress=Silent(), tools=fake.tools
    )
    assert any("of 24 tracks are judged: whole artists drawn" in note for note in found.notes)
    assert len(fake.given[-1][0]) <= 12


# ---- distortions, networks, map ------------------------------------------------------------------------------


@pytest.fixture
def sample(tmp_path: Path) -> Any:
    with (tmp_path / "scratch").open("w+b") as file:
        clips = ClipSample(file, RATE)
        for row in range(3):
            clips.append(made_clip(row))
        yield clips


def test_distortions_are_the_same_whenever_they_are_read(sample: ClipSample) -> None:
    for condition in CONDITIONS:
        one, other = Distorted(sample, condition, 0), Distorted(sample, condition, 0)
        backwards = [other[row].samples for row in (2, 1, 0)][::-1]
        for row in range(3):
            np.testing.assert_array_equal(one[row].samples, backwards[row])
            np.testing.assert_array_equal(one[row].samples, one[row].samples)
            assert not np.array_equal(one[row].samples, sample[row].samples)
    noise = Distorted(sample, "noise-20db", 0)[1].samples
    assert not np.array_equal(Distorted(sample, "noise-20db", 1)[1].samples, noise)
    shifted = Distorted(sample, "shift-0.5-3s", 0)[0].samples
    assert len(shifted) == RATE // 4, "half of a short clip is kept"
    assert len(sample) == 3


def test_an_mp3_is_made_once(sample: ClipSample, monkeypatch: pytest.MonkeyPatch) -> None:
    distorted = Distorted(sample, "mp3-32kbit", 0)
    first = [distorted[row].samples for row in (2, 0)]
    monkeypatch.setattr("eval.representation.distort.as_mp3", None)
    for row, samples in zip((2, 0), first, strict=True):
        np.testing.assert_array_equal(distorted[row].samples, samples)
        np.testing.assert_allclose(samples, as_mp3(sample[row].samples, RATE, 32), atol=1 / 32_000)


def test_mfcc_statistics_are_standardised_by_training_clips() -> None:
    clips = [made_clip(row) for row in range(6)]
    made = fit_mfcc(clips[:4], LogMelSettings()).embed(clips)
    assert made.shape == (6, 80)
    np.testing.assert_allclose(made[:4].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(made[:4].std(axis=0), 1, atol=1e-2)
    silence = mfcc_statistics(Clip(np.zeros(RATE, np.float32), RATE, 1.0), LogMelSettings())
    assert not silence.any()
    steady = mfcc_statistics(made_clip(0), LogMelSettings())
    assert np.abs(steady[40:60]).max() < 0.2 < np.abs(steady[:20]).max(), "means, deviations, then those of differences"


def test_networks_change_what_they_name_and_leave_the_rest() -> None:
    asked = AudioSettings.model_validate({"train": {"patience": 3}, "network": {"width": 8}})
    for name in set(NETWORKS) - {"mfcc"}:
        settings = network_settings(name, asked)
        assert (settings.train.patience, settings.network.width) == (3, 8)
        assert (settings.train.epochs == 0) == (name == "untrained")
    assert network_settings("auto", asked) == asked
    assert network_settings("musicnn", asked).network.tune == "none"
    assert network_settings("dense", asked).network.start == "random"


def test_networks_whose_weights_are_missing_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.representation.models.musicnn_weights", lambda: None)
    notes: list[str] = []
    fits = fits_of(("musicnn", "auto", "mfcc", "musicnn-head"), AUDIO, 0, notes)
    assert list(fits) == ["auto", "mfcc"]
    assert "musicnn and musicnn-head: no published weights here" in notes[0]


def test_the_map_keeps_neighbours_and_names_genres() -> None:
    rng = np.random.default_rng(0)
    genres = np.arange(45) % 3
    vectors = (np.eye(3, 8)[genres] + rng.normal(0, 0.05, (45, 8))).astype(np.float32)
    places = on_a_plane(vectors, 0)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (genres[distances.argmin(axis=1)] == genres).mean() > 0.9
    assert on_a_plane(vectors[:4], 0).shape == (4, 2)
    assert on_a_plane(vectors[:1], 0).shape == (1, 2)
    names = [f"genre {n % 12}" if n < 43 else None for n in range(45)]
    figure = draw_map(places, names, "title")
    (legend,) = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == [
        *(f"genre {n} (4)" for n in (0, 1, 2, 3, 4, 5, 6)),
        *shown[7:9],
        "3 other genres (9)",
        "no genre (2)",
    ]
    drawn = sum(len(dots.get_offsets()) for dots in figure.axes[0].collections)
    assert drawn == 45


# ---- through evaluate and the command line -------------------------------------------------------------------


def evaluated(out: Path, protocols: tuple[str, ...], tracks: Tracks, listens: Any, **given: Any) -> Any:
    settings = EvaluationSettings(protocols=protocols, ks=(5,), n_resamples=100, representation=SETTINGS)
    return evaluate(
        tracks,
        listens,
        None,
        settings=RunSettings(),
        evaluation_settings=settings,
        out=out,
        tools=Fake().tools,
        **given,
    )


@pytest.mark.slow
def test_no_listens_are_needed_and_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "generations" / "gen-3").mkdir(parents=True)
    Store(tmp_path).make_current("gen-3")
    found = evaluated(tmp_path / "out", ("representation",), catalogue(), None, store=tmp_path)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["evaluation.duckdb", "map.png", "map.svg", "report.html", "report.json"]
    (kept,) = (tmp_path / "evaluations").iterdir()
    for path in (tmp_path / "out" / "evaluation.duckdb", kept):
        with duckdb.connect(str(path), read_only=True) as connection:
            assert connection.execute("FROM evaluation").fetchall() == found.figures.rows()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report["formulas"]) >= set(found.figures["metric"])
    assert report["networks"]["fake"]["label"] == "a fake"
    assert report["settings"]["evaluate"]["representation"]["n_folds"] == 3
    assert not any("user" in note for note in report["notes"] if "n_users" not in note)


@pytest.mark.slow
def test_with_listens_both_are_in_one_table(tmp_path: Path) -> None:
    listened = listened_catalogue().frame
    sound = [f"/music/{row}.wav" for row in range(len(listened))]
    frame = listened.with_columns(path=pl.Series(sound), artist=pl.Series([f"a{row % 7}" for row in range(len(sound))]))
    found = evaluated(tmp_path, ("representation", "warm"), Tracks(frame), planted(), fit=RecordingFit())
    assert set(found.figures["split"]) == {"warm", "representation"}
    assert found.about["formulas"]["recall"].startswith("hits in the top k")
    assert "representation: 1 where the clean vector" in found.about["formulas"]["recall"]
    with pytest.raises(DataError, match="no listens, and warm need some"):
        evaluated(tmp_path, ("representation", "warm"), catalogue(), made_listens([]))


def test_the_table_has_a_row_a_figure_and_a_column_a_network(once: Once, tmp_path: Path) -> None:
    figures, facts = once.found.figures, once.found.networks["fake"]
    two = figures.vstack(figures.filter(segment="svm").with_columns(model=pl.lit("other")))
    console = Console(width=120, record=True, file=(tmp_path / "screen").open("w"))
    console.print(representation_table(two, {"fake": facts, "other": facts}))
    console.file.close()
    text = console.export_text()
    row = figures.filter(segment="svm").row(0, named=True)
    cell = f"{row['value']:.3f} ±{(row['ci_high'] - row['ci_low']) / 2:.3f}"
    (line,) = [line for line in text.splitlines() if "svm" in line]
    assert line.count(cell) == 2
    assert str(row["n_users"]) in line
    (line,) = [line for line in text.splitlines() if "lda" in line]
    assert line.count("±") == 1
    assert "found again by its own sound" in text
    assert "other" in text


@pytest.mark.slow
def test_the_command_on_real_files(tmp_path: Path) -> None:
    """The build's own decoding and a small network of its own, from files to the screen."""
    lines = ["track_id,path,artist,genre"]
    for row in range(5):
        (tmp_path / f"s{row}.wav").write_bytes(encoded(melody(1.0, row), "WAV", "PCM_16"))
        lines.append(f"s{row},s{row}.wav,artist {row},{('jazz', 'metal')[row % 2]}")
    (tmp_path / "tracks.csv").write_text("\n".join(lines))
    (tmp_path / "quick.toml").write_text(QUICK)
    ran = run(
        *("evaluate", "--tracks", tmp_path / "tracks.csv", "--out", tmp_path / "out", "--protocol", "representation"),
        *("--networks", "conv1d", "--config", tmp_path / "quick.toml"),
    )
    assert ran.status == 0, ran.err
    assert "conv1d" in ran.out
    assert "band-300-3400hz @1" in ran.out
    assert "recall@" not in ran.out, "there were no lists"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["networks"]["conv1d"]["label"] == "conv1d, random start"
    assert report["networks"]["conv1d"]["n_parameters"] > 1000


def test_errors_of_the_command_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "tracks.csv").write_text("track_id,path,artist\na,a.wav,x\nb,b.wav,y\n")
    common = (
        "evaluate",
        "--tracks",
        tmp_path / "tracks.csv",
        "--out",
        tmp_path / "out",
        "--protocol",
        "representation",
    )
    assert "networks" in run(*common, "--networks", "vgg").complaint
    assert "max_tracks" in run(*common, "--max-tracks", "3").complaint
    assert "2 tracks of 2 artists cannot be parted into 5 folds" in run(*common).complaint
    assert "protocols" in run(*common[:-1], "representations").complaint
