"""The protocol ``representation``: tracks with sound and labels in, figures of every network out.

    Tracks, Tags -> draw_tracks -> labels, artist-disjoint folds
                 -> read clips -> of each network and fold: fit on the other folds -> vectors of all -> values a track
                 -> summarise -> figures, with intervals over artists; map.png, map.svg

The network of a fold has seen nothing of that fold's artists, nor has a probe. Listens play no part. Finished folds are
kept while the run goes on, so one that was killed is run again and goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from eval.representation.distort import CONDITIONS, Distorted, check_conditions
from eval.representation.figures import NOTES, FoldValues, summarise
from eval.representation.folds import artist_folds, draw_tracks, labels_of
from eval.representation.judge import JudgedTracks, clean_vectors, fitted_to, fold_values, unit_vectors
from eval.representation.kept import KeptFolds
from eval.representation.map import draw_map, on_a_plane
from eval.representation.models import WHAT, Fit, Fitted, fits_of
from eval.representation.settings import RepresentationSettings
from recsys.audio.cache import FileMark
from recsys.audio.networks.choice import heard_at
from recsys.audio.networks.frozen import remembered_features
from recsys.audio.networks.weights import musicnn_weights
from recsys.audio.sample import ClipSample, read_sample
from recsys.audio.settings import AudioSettings
from recsys.errors import DataError
from recsys.types import Clip, Float32, Int32, Tags, Tracks
from recsys.util.figures import save_picture
from recsys.util.progress import Progress

GIVEN = "given"
Reader = Callable[[Sequence[tuple[int, Path]], AudioSettings, BinaryIO, Progress], tuple[Int32, ClipSample]]


@dataclass(frozen=True, slots=True)
class Tools:
    """What does the work; tests put in small ones.

    ``read`` decodes clips into a scratch file, ``fits`` has a function by network's name, ``remembered`` keeps what
    frozen networks made of a clip for the next fold.
    """

    read: Reader
    fits: Mapping[str, Fit]
    remembered: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True, slots=True, eq=False)
class Represented:
    """The figures in ``FIGURES_SCHEMA``, facts of each network, and what a reader must know."""

    figures: pl.DataFrame
    networks: dict[str, dict[str, Any]]
    notes: list[str]


def represent(
    tracks: Tracks,
    tags: Tags | None,
    audio: AudioSettings,
    settings: RepresentationSettings,
    *,
    n_resamples: int,
    out: Path,
    progress: Progress,
    tools: Tools | None = None,
) -> Represented:
    """Judge networks on the sound of a catalogue.

    Args:
        tracks: with audio, or with given vectors, which are then judged alone. tags: to be told from vectors.
        audio: of the build. settings: networks, folds, how many tracks. n_resamples: of the bootstrap over artists.
        out: an existing folder; ``map.png`` and ``map.svg`` go there, and finished folds, which the caller removes when
        all is written.
        tools: None for the build's own.

    Raises:
        DataError: nothing can be heard, there are fewer artists than folds, or no network is left to judge.
        ArtefactError: the folder cannot be written.
    """
    audio = heard_at(audio)
    is_given = bool(tracks.frame["vector"].is_not_null().any())
    usable = Tracks(tracks.frame.filter(pl.col("vector" if is_given else "path").is_not_null()))
    if not len(usable):
        raise DataError(f"none of {len(tracks):,} tracks has audio or a vector, which is what representation judges")
    drawn = Tracks(usable.frame[draw_tracks(usable, settings.max_tracks, settings.seed)])
    artist_folds(labels_of(drawn, None, settings), settings.n_folds, settings.seed)  # too few artists: before decoding
    notes = [*NOTES]
    if len(drawn) < len(usable):
        notes.append(
            f"{len(drawn):,} of {len(usable):,} tracks are judged: whole artists drawn by seed {settings.seed}"
        )
    if is_given:
        notes.append("the vectors that came with the tracks are judged, and no network: nothing is distorted")
        vectors = unit_vectors(np.array(drawn.frame["vector"].to_list(), np.float32))
        material = _material(drawn, tags, settings, None, vectors)
        return _run(material, {GIVEN: _given}, audio, settings, n_resamples, out, progress, notes)
    tools = tools or _build_tools(settings, audio, notes)
    if not tools.fits:
        raise DataError(f"none of the networks {', '.join(settings.networks)} can be judged: {notes[-1]}")
    check_conditions(audio.decode.sample_rate)
    with TemporaryFile() as scratch, tools.remembered():
        paths = [(row, Path(path)) for row, path in enumerate(drawn.frame["path"].to_list())]
        rows, clips = tools.read(paths, audio, scratch, progress)
        if len(rows) < len(drawn):
            notes.append(f"{len(drawn) - len(rows):,} files do not decode and are left out; a build says why")
        material = _material(Tracks(drawn.frame[rows]), tags, settings, clips, None)
        return _run(material, tools.fits, audio, settings, n_resamples, out, progress, notes)


def _build_tools(settings: RepresentationSettings, audio: AudioSettings, notes: list[str]) -> Tools:
    return Tools(read_sample, fits_of(settings.networks, audio, settings.seed, notes), remembered_features)


def _given(*_: object) -> Fitted:
    def never(clips: Sequence[Clip]) -> Float32:
        raise DataError(f"{len(clips)} clips are to be embedded, but the vectors of this catalogue came with it")

    return Fitted(never, 0, WHAT[GIVEN])


def _material(
    tracks: Tracks, tags: Tags | None, settings: RepresentationSettings, clips: ClipSample | None, given: Float32 | None
) -> JudgedTracks:
    labels = labels_of(tracks, tags, settings)
    folds = artist_folds(labels, settings.n_folds, settings.seed)
    distorted = {} if clips is None else {name: Distorted(clips, name, settings.seed) for name in CONDITIONS}
    return JudgedTracks(tracks, tags, labels, folds, clips, distorted, given)


def _run(
    material: JudgedTracks,
    fits: Mapping[str, Fit],
    audio: AudioSettings,
    settings: RepresentationSettings,
    n_resamples: int,
    out: Path,
    progress: Progress,
    notes: list[str],
) -> Represented:
    """Fit and judge every network on every fold, those apart that an earlier run finished; then the map."""
    kept = KeptFolds(out, _facts(material, audio, settings))
    found: dict[str, list[FoldValues]] = {}
    for name, fit in fits.items():
        found[name] = []
        for fold in range(settings.n_folds):
            values = kept.get(name, fold)
            if values is None:
                with progress.stage(f"{name}, fold {fold + 1} of {settings.n_folds}"):
                    values = fold_values(material, fold, fit, progress)
                kept.put(name, fold, values)
            found[name].append(values)
    figures = summarise(found, material.labels, n_resamples, settings.seed)
    notes.append(_draw(material, next(iter(fits.items())), settings.seed, out, progress))
    return Represented(figures, {name: _network_facts(folds) for name, folds in found.items()}, notes)


def _network_facts(folds: Sequence[FoldValues]) -> dict[str, Any]:
    """Tell of a network: what it is, its parameters (of the first fold), seconds."""
    first = folds[0].facts
    fit_seconds = [round(fold.facts["fit_seconds"], 2) for fold in folds]
    times = [fold.facts["embed_ms"] for fold in folds if fold.facts["embed_ms"] is not None]
    embed_ms = round(float(np.median(times)), 2) if times else None
    return {
        "label": first["label"],
        "n_parameters": first["n_parameters"],
        "fit_seconds": fit_seconds,
        "embed_ms": embed_ms,
    }


def _draw(material: JudgedTracks, chosen: tuple[str, Fit], seed: int, out: Path, progress: Progress) -> str:
    """Draw the map by one network that has learned from all tracks: vectors of two folds' networks do not compare."""
    name, fit = chosen
    everything = np.arange(len(material.labels), dtype=np.int32)
    progress.detail(f"the map, by {name}")
    fitted = fitted_to(material, everything, fit, progress)
    with progress.bar("map: embedding", len(everything) if material.clips is not None else 0, "clips") as bar:
        vectors = clean_vectors(material, fitted, bar)
    genres = [None if genre < 0 else material.labels.genre_names[genre] for genre in material.labels.genres]
    seen = "" if material.clips is None else ", fitted to all of them"
    title = f"{len(everything):,} tracks by sound, coloured by genre\n{name}: {fitted.label}{seen}"
    figure = draw_map(on_a_plane(vectors, seed), genres, title)
    for suffix in (".png", ".svg"):
        save_picture(figure, out / f"map{suffix}")
    if material.clips is None:
        return "map.png and map.svg show the vectors that came with the tracks"
    return (
        f"map.png and map.svg are of one {name} network that was fitted to all tracks, since vectors of two networks "
        "do not compare: they show the catalogue, and prove nothing of tracks that are new"
    )


def _facts(material: JudgedTracks, audio: AudioSettings, settings: RepresentationSettings) -> dict[str, Any]:
    """Collect all that decides the values of a network and fold."""
    tracks, tags = material.tracks.frame, material.tags
    files = [FileMark.of(Path(path)) if path else None for path in tracks["path"].to_list()]
    return {
        "audio": audio.model_dump(mode="json", exclude={"workers", "batch_clips"}),
        "settings": settings.model_dump(mode="json", exclude={"networks"}),
        "tracks": tracks.drop("title", "album", "lyrics").rows(),
        "files": [None if mark is None else (mark.size, mark.changed_ns) for mark in files],
        "tags": None if tags is None else tags.frame.sort("track_id", "tag").rows(),
        "weights": str(musicnn_weights()),
        "version": metadata.version("recsys"),
    }
