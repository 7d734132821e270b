"""The build: tables, live log and audio in, a published generation out, in the order of the design's way of the data.

    read -> fit -> write a generation beside -> check it -> make it current -> drop old ones

An interrupted build is run again: finished sound vectors and the trained audio network are kept in the store's cache,
and what was half written is nobody's generation.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pipelines.publish import publish
from recsys.audio.cache import VectorCache
from recsys.audio.model import SoundModel
from recsys.audio.networks.plug_in import read_plug_in
from recsys.audio.settings import AudioSettings
from recsys.catalogue.listens import read_listens
from recsys.catalogue.problems import Problems
from recsys.catalogue.tracks import read_tags, read_tracks
from recsys.config import RunSettings
from recsys.errors import ArtefactError, ConfigError, DataError, MissingExtraError, NewerError
from recsys.eventlog.replay import ReplayedLog, forget_audio, read_live, with_listens, with_tracks
from recsys.fit import fit
from recsys.store.generation import Store, disk_errors
from recsys.store.manifest import read_facts
from recsys.store.weights import load_sound_model
from recsys.types import Listens, Tags, Tracks
from recsys.util.progress import Progress


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files that a catalogue is read from; all but the tracks are optional."""

    tracks: Path
    listens: Path | None = None
    tags: Path | None = None
    audio_root: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BuildInputs:
    """Checked inputs."""

    tracks: Tracks
    listens: Listens | None
    tags: Tags | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a build came to: the ``build`` row, problems by kind, and of each kind the first: a row of the table."""

    build: dict[str, Any]
    problems: dict[str, int]
    examples: list[tuple[Any, ...]]


def read_catalogue(inputs: Inputs, settings: RunSettings, problems: Problems, also: Sequence[str] = ()) -> BuildInputs:
    """Read and check the tables; bad rows become problems.

    ``also`` are ids that the listens may name besides those of the tracks table.

    Raises:
        DataError: a table is missing or unreadable, or there are no tracks in it.
    """
    tracks = read_tracks(inputs.tracks, problems, inputs.audio_root)
    track_ids = tracks.frame["track_id"]
    tags = None if inputs.tags is None else read_tags(inputs.tags, track_ids, problems)
    heard = pl.concat([track_ids, pl.Series("track_id", also, dtype=pl.String)])
    listens = None if inputs.listens is None else read_listens(inputs.listens, heard, problems, settings.listens)
    return BuildInputs(tracks, listens, tags)


def read_and_tell(inputs: Inputs, settings: RunSettings, progress: Progress) -> BuildInputs:
    """Read and check the tables, and say how many bad rows were left out."""
    problems = Problems()
    with progress.stage("read") as stage:
        catalogue = read_catalogue(inputs, settings, problems)
        stage.done(_read_outcome(catalogue, problems))
    if len(problems):
        counted = ", ".join(f"{n:,} {kind}" for kind, n in problems.counts().items())
        progress.log(f"problems in the input (the rest is used): {counted}")
    return catalogue


def _read_outcome(catalogue: BuildInputs, problems: Problems) -> str:
    listens = catalogue.listens
    found = [f"{len(catalogue.tracks):,} tracks"]
    found.append(
        "no listens"
        if listens is None
        else f"{len(listens):,} listens of {listens.frame['user_id'].n_unique():,} users"
    )
    found += [] if catalogue.tags is None else [f"{len(catalogue.tags.frame):,} tags"]
    found += [f"{len(problems):,} problems"] if len(problems) else []
    return ", ".join(found)


def build(
    inputs: Inputs,
    folder: Path,
    settings: RunSettings,
    progress: Progress,
    strict: bool = False,
    retrain: bool = False,
) -> Summary:
    """Build a store's next generation and make it current.

    Args:
        inputs: the tables.
        folder: of the store; made if it is not there.
        settings: of every step.
        progress: where stages report.
        strict: any problem ends the build before anything is published.
        retrain: train the audio network anew, though the store has one for these settings.

    Raises:
        DataError: nothing usable came in, or ``strict`` found a problem; a store that this call made is gone again.
        ArtefactError: another build is running, a newer version has written to the store, or writing failed; the last
            good generation is still current.
    """
    store, existed = Store(folder), folder.exists()
    try:
        with store.build_lock(), disk_errors("the build"):
            return _build(inputs, store, settings, progress, strict, retrain)
    except (ConfigError, DataError):
        if not existed and not store.has_current() and not _has_vectors(store):
            shutil.rmtree(folder)
        raise


def _has_vectors(store: Store) -> bool:
    """Whether finished sound vectors wait for the next try, which must not be made again."""
    file = store.cache / "sound.lmdb"
    if not file.exists():
        return False
    with VectorCache(file) as cache:
        return cache.n_entries() > 0


def _build(
    inputs: Inputs, store: Store, settings: RunSettings, progress: Progress, strict: bool, retrain: bool
) -> Summary:
    problems = Problems()
    _refuse_newer(store)
    kept = None if retrain else _kept_network(store, settings)
    if kept is None and settings.audio.network.name == "onnx":
        read_plug_in(settings.audio.network, settings.audio.log_mel)  # what is wrong with it is said before all else
    with progress.stage("read") as stage:
        taken = read_live(store)
        forget_audio(store, taken)
        catalogue = read_catalogue(inputs, settings, problems, [upload.track_id for upload in taken.uploads])
        for what, n in problems.left_out.items():
            progress.log(f"left out as the settings say: {n:,} {what}")
        catalogue = _with_live(catalogue, taken, store, progress)
        stage.done(_read_outcome(catalogue, problems))
    if strict:
        _refuse(problems)
    store.cache.mkdir(exist_ok=True)
    with VectorCache(store.cache / "sound.lmdb") as cache:
        recommender = fit(
            catalogue.tracks,
            catalogue.listens,
            catalogue.tags,
            settings,
            sound_model=kept,
            sound_cache=cache,
            problems=problems,
            progress=progress,
            on_sound_model=lambda model: keep_network(store, model),
            sound_checkpoint=store.cache / "training",
        )
    if strict:
        _refuse(problems)
    row = publish(recommender, store, settings, inputs_facts(inputs), problems, taken.last_seq, progress)
    return Summary(row, problems.counts(), problems.examples())


def _refuse_newer(store: Store) -> None:
    """Refuse a store that a newer version has written to: what is built here would be less than what is there."""
    for name in store.names():
        try:
            read_facts(store.generation(name))
        except NewerError:
            raise
        except ArtefactError:
            continue  # damaged, and no reason not to build


def _refuse(problems: Problems) -> None:
    if len(problems):
        kind, source, row, value, reason = problems.frame().row(0)
        raise DataError(
            f"--strict: {len(problems)} problems; the first is {kind} in {source}"
            f"{'' if row is None else f' row {row}'} ({value!r}): {reason}".replace("\\\\", "\\")
        )


def _with_live(catalogue: BuildInputs, taken: ReplayedLog, store: Store, progress: Progress) -> BuildInputs:
    """Add what was uploaded and heard since the tables were written, and leave out what was deleted."""
    if not taken.last_seq:
        return catalogue
    tracks = with_tracks(catalogue.tracks, taken, store.uploads, progress)
    tags = catalogue.tags
    if tags is not None and taken.gone_tracks:
        tags = Tags(tags.frame.filter(~pl.col("track_id").is_in(taken.gone_tracks)))
    return BuildInputs(tracks, with_listens(catalogue.listens, tracks, taken, progress), tags)


def _kept_network(store: Store, settings: RunSettings) -> SoundModel | None:
    """Find the store's audio network: vectors stay comparable from build to build, and a nightly build is cheap."""
    folders = [store.current() / "models"] if store.has_current() else []
    for folder in [*folders, store.cache / "network"]:
        try:
            model = load_sound_model(folder)
        except (ArtefactError, MissingExtraError):
            continue  # a damaged network is trained anew, and what the settings ask for is looked for again
        if model is not None and _what(model.origin.asked) == _what(settings.audio):
            return model
    return None


def _what(settings: AudioSettings) -> dict[str, Any]:
    """Say what the vectors depend on; processes and batches are only how they are made."""
    return settings.model_dump(exclude={"workers": True, "batch_clips": True, "device": True, "network": {"model"}})


def keep_network(store: Store, model: SoundModel) -> None:
    """Keep a network as soon as it is trained, so that a build killed while embedding does not train again."""
    beside = store.cache / "network.partial"
    shutil.rmtree(beside, ignore_errors=True)
    (beside / "sound").mkdir(parents=True)
    model.save(beside / "sound")
    shutil.rmtree(store.cache / "network", ignore_errors=True)
    beside.rename(store.cache / "network")
    shutil.rmtree(store.cache / "training", ignore_errors=True)


def inputs_facts(inputs: Inputs) -> dict[str, Any]:
    """Name, size and time of each input file, for the ``build`` table."""
    facts: dict[str, Any] = {}
    for name in ("tracks", "listens", "tags"):
        file: Path | None = getattr(inputs, name)
        if file is not None:
            facts[name] = {"path": str(file), "bytes": file.stat().st_size, "modified_s": file.stat().st_mtime}
    return facts
