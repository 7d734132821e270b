"""Everything learned, in memory: tracks, listens and tags in, a Recommender out. No store, no files but audio.

    Plays -> ALS -> factors ─┐
    audio -> sound vectors ──┼─> content vectors -> prior -> parts -> blend -> Recommender
    metadata, lyrics, tags ──┘

ALS comes before the audio network, because its item factors are one of the network's proxy tasks. The build is
read + fit + publish + resume; evaluation calls this same function for each fold, so what it judges is what is served.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from scipy.sparse import csr_matrix

from recsys.audio.cache import VectorCache
from recsys.audio.embed import embed_paths
from recsys.audio.fit import train_sound_model
from recsys.audio.model import SoundModel
from recsys.catalogue.histories import in_order
from recsys.catalogue.ids import IdMap
from recsys.catalogue.listens import plays_of
from recsys.catalogue.problems import Problems
from recsys.cf.als import fit_als
from recsys.cf.choice import choose_als
from recsys.config import RunSettings
from recsys.content.lyrics import LyricsReader, learn_lyrics
from recsys.content.metadata import learn_vocabulary
from recsys.content.targets import targets_of
from recsys.errors import DataError
from recsys.hybrid.blend import NEW, join
from recsys.hybrid.encoder import Scaler, line_up
from recsys.hybrid.following import Following, Surroundings
from recsys.hybrid.following_weights import learn_following
from recsys.hybrid.next_tracks import count_next
from recsys.hybrid.parts import FittedParts, Known, fit_parts
from recsys.hybrid.validation import MIN_PAIRS, HeldOut, hold_out
from recsys.hybrid.weights import Learned, learn_weights, settle
from recsys.ranking.attributes import TrackAttributes
from recsys.ranking.model import Model, SpaceVectors
from recsys.ranking.order import Order
from recsys.recommender import Artefacts, CatalogueSound, Fitted, Recommender
from recsys.types import Factors, Int32, Listens, Plays, Space, Tags, Tracks
from recsys.util.progress import Progress, Silent, Stage


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What a build keeps of the audio step from run to run; all of it may be missing."""

    model: SoundModel | None
    cache: VectorCache | None
    on_model: Callable[[SoundModel], None] | None
    checkpoint: Path | None


@dataclass(slots=True)
class Clock:
    """Seconds by stage, for the ``build`` table; ``progress`` shows each stage."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Show and time one stage."""
        start = time.perf_counter()
        with self.progress.stage(name) as stage:
            yield stage
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)


# how much the last plays count in lists that follow each play, and in those that a build stores
Followings: TypeAlias = tuple[Following, Following | None]


def fit(
    tracks: Tracks,
    listens: Listens | None,
    tags: Tags | None,
    settings: RunSettings,
    *,
    sound_model: SoundModel | None = None,
    sound_cache: VectorCache | None = None,
    problems: Problems | None = None,
    progress: Progress | None = None,
    on_sound_model: Callable[[SoundModel], None] | None = None,
    sound_checkpoint: Path | None = None,
) -> Recommender:
    """Learn everything from a catalogue and its listens.

    Args:
        tracks: the catalogue; anything but the ids may be missing.
        listens: training listens only; None or empty for a catalogue that nobody has listened to.
        tags: tags of the tracks.
        settings: of every step; the same inputs, settings and seed give the same model.
        sound_model: an audio network to keep; trained anew by default.
        sound_cache: finished sound vectors of earlier runs.
        problems: where bad audio is reported.
        progress: where stages report.
        on_sound_model: called with the audio network as soon as it is trained, so that a build can keep it.
        sound_checkpoint: folder from which the training of the audio network goes on after a kill.

    Returns:
        A Recommender in memory; its ``artefacts`` hold what publishing needs.

    Raises:
        DataError: there is nothing to learn from: no plays, and nothing known of any track.
        ConfigError: the settings ask for a sentence encoder that is not installed.
    """
    progress = progress or Silent()
    clock = Clock(progress)
    problems = Problems() if problems is None else problems  # an empty one is false
    track_ids = tracks.frame["track_id"].to_list()
    plays = plays_of(listens, track_ids) if listens is not None else no_plays(track_ids)
    with clock.stage("lyrics") as stage:
        reader = learn_lyrics(tracks.frame["lyrics"], settings.hybrid.content.fusion.lyrics, progress)
        stage.done(f"{tracks.frame['lyrics'].count():,} of {len(tracks):,} tracks have words")
    attributes = TrackAttributes.of(tracks.frame, plays.n_plays)
    held_out = hold_out(plays, listens, settings.blend, settings.seed)
    with clock.stage("als") as stage:
        settings = _with_als(settings, held_out, progress)
        factors = fit_als(plays, settings.hybrid.als, settings.seed, progress) if plays.counts.nnz else None
        stage.done(_als_outcome(plays, factors))
    with clock.stage("audio") as stage:
        kept = Kept(sound_model, sound_cache, on_sound_model, sound_checkpoint)
        sound = _sound(tracks, tags, plays, factors, settings, kept, problems, progress)
        stage.done(_sound_outcome(tracks, sound))
    with progress.stage("metadata") as stage:
        known = _known(tracks, tags, reader, sound, settings, progress)
        names = known.vocabulary
        stage.done(f"{len(names.genres):,} genres, {len(names.artists):,} artists, {len(names.tags):,} tags")
    if not known.has_content and not plays.counts.nnz:
        raise DataError(
            f"nothing usable in {len(tracks)} tracks: no listens, and no audio, vector, tag, genre, artist, year or "
            f"lyrics of any track; give at least one of these{_told(problems)}"
        )
    with clock.stage("blend") as stage:
        learned, following = _weights(known, held_out, listens, attributes.artists, settings, progress)
        weights = {name: weight for name, weight in learned.weights.items() if name != NEW}
        progress.detail("weights: " + ", ".join(f"{name} {weight:.2g}" for name, weight in weights.items()))
        stage.done(f"weights of {len(weights)} parts by {held_out.pairs.nnz:,} held-out pairs")
    with clock.stage("hybrid") as stage:
        fitted = fit_parts(known, plays, settings.hybrid, settings.seed, progress, factors)
        blend, user_vectors, item_vectors = join(fitted.parts, learned.weights, plays.n_listeners, learned.new)
        blend = settle(learned, blend, user_vectors, item_vectors, plays, settings.blend.share_of_new)
        stage.done(
            f"{len(user_vectors):,} users and {len(item_vectors):,} tracks -> vectors ({item_vectors.shape[1]},)"
        )
    model = Model(
        IdMap.of(plays.user_ids, what="user"),
        IdMap.of(track_ids, what="track"),
        blend,
        user_vectors,
        item_vectors,
        plays.counts,
        plays.barred,
        _spaces(sound, fitted, plays),
        _order(following, plays, listens, attributes.artists, settings),
    )
    artefacts = Artefacts(fitted.encoder, sound, tracks, listens, tags, clock.seconds)
    return Recommender(
        Fitted(model, InMemory(tracks, plays, sound), lists=settings.lists, attributes=attributes, artefacts=artefacts)
    )


def _told(problems: Problems) -> str:
    counts = ", ".join(f"{n:,} {kind}" for kind, n in problems.counts().items())
    return f" (problems in the input: {counts})" if counts else ""


def no_plays(track_ids: Sequence[str]) -> Plays:
    """Plays of nobody."""
    shape = (0, len(track_ids))
    return Plays(csr_matrix(shape, dtype=np.float32), csr_matrix(shape, dtype=bool), [], list(track_ids))


def _sound(
    tracks: Tracks,
    tags: Tags | None,
    plays: Plays,
    factors: Factors | None,
    settings: RunSettings,
    kept: Kept,
    problems: Problems,
    progress: Progress,
) -> CatalogueSound:
    """Take the vectors that came with the tracks, or make them from the audio files; there may be neither."""
    given = tracks.frame["vector"]
    if given.null_count() < len(given):
        rows = np.flatnonzero(given.is_not_null().to_numpy()).astype(np.int32)
        vectors = np.array(given.drop_nulls().to_list(), dtype=np.float32)
        unknown = np.full(len(rows), np.nan, dtype=np.float32)
        return CatalogueSound(rows, vectors, unknown, ("",) * len(rows), None)
    paths = tracks.frame["path"]
    rows = np.flatnonzero(paths.is_not_null().to_numpy()).astype(np.int32)
    if not len(rows):
        none = np.zeros((0, 1), dtype=np.float32)
        return CatalogueSound(rows, none, np.zeros(0, np.float32), (), None)
    files = [None if path is None else Path(path) for path in paths.to_list()]
    model = kept.model
    if model is None:
        learned = (None,) * 3 if factors is None else (factors.item_factors, plays.n_listeners, plays.n_dislikers)
        item_factors, n_listeners, n_dislikers = learned
        targets = targets_of(tracks, item_factors, n_listeners, settings.audio.tasks, tags, n_dislikers)
        present = [(row, file) for row, file in enumerate(files) if file is not None]
        model = train_sound_model(present, targets, settings.audio, settings.seed, progress, kept.checkpoint)
        if kept.on_model is not None:
            kept.on_model(model)
    heard = embed_paths(files, model, settings.audio, kept.cache, problems, progress, track_ids=plays.track_ids)
    return CatalogueSound(heard.rows, heard.vectors, heard.durations_s, heard.hashes, model)


def _known(
    tracks: Tracks,
    tags: Tags | None,
    reader: LyricsReader,
    sound: CatalogueSound,
    settings: RunSettings,
    progress: Progress,
) -> Known:
    vocabulary = learn_vocabulary(tracks, tags, settings.metadata)
    scaler = Scaler.of(sound.vectors) if len(sound.rows) else None
    modalities = line_up(vocabulary, reader, scaler, tracks, tags, (sound.rows, sound.vectors), progress)
    return Known(tracks, tags, vocabulary, reader, modalities, scaler)


def _with_als(settings: RunSettings, held_out: HeldOut, progress: Progress) -> RunSettings:
    """Let held-out plays of played tracks choose the settings of ALS."""
    hybrid, pairs = settings.hybrid, held_out.pairs_of(~held_out.of_new)
    if pairs.nnz < MIN_PAIRS:
        return settings
    als = choose_als(held_out.kept, pairs, hybrid.als, hybrid.choice, settings.seed, progress)
    return settings.model_copy(update={"hybrid": hybrid.model_copy(update={"als": als})})


def _weights(
    known: Known,
    held_out: HeldOut,
    listens: Listens | None,
    artists: Int32,
    settings: RunSettings,
    progress: Progress,
) -> tuple[Learned, Followings | None]:
    """Learn the blend's weights from parts fitted without a few held-out plays and tracks, and those of their order."""
    if not (held_out.pairs.nnz and held_out.kept.counts.nnz):
        given = settings.blend.given().items()
        return Learned({name: 1.0 if value is None else value for name, value in given}, {}), None
    kept = held_out.kept
    fitted = fit_parts(known, kept, settings.hybrid, settings.seed, progress)
    blend, users, items = join(fitted.parts, {p.name: 1.0 for p in fitted.parts}, kept.n_listeners)
    learned = learn_weights(blend, users, items, held_out, settings.blend, progress)
    if listens is None or held_out.cut_s is None or not settings.next.enabled:
        return learned, None
    plays = in_order(listens, kept.user_ids, kept.track_ids)
    before = plays.seconds < held_out.cut_s
    counted = count_next(plays.only(before), len(kept.track_ids), settings.next)
    surroundings = Surroundings.of(counted, artists, kept.n_listeners)
    blend, _, items = join(fitted.parts, learned.weights, kept.n_listeners, learned.new)
    learn = partial(
        learn_following,
        blend,
        items,
        kept,
        plays.only(~before),
        surroundings,
        settings.next,
        progress,
        settings.seed,
    )
    following = learn(told=True)
    stored = learn(told=False) if following is not None and settings.next.stored_lists else None
    return learned, None if following is None else (following, stored)


def _order(
    followings: Followings | None, plays: Plays, listens: Listens | None, artists: Int32, settings: RunSettings
) -> Order | None:
    """Count what follows what on all plays, where that was found to tell something."""
    if followings is None or listens is None or plays.histories is None:
        return None
    counted = count_next(in_order(listens, plays.user_ids, plays.track_ids), len(plays.track_ids), settings.next)
    return Order(plays.histories, Surroundings.of(counted, artists, plays.n_listeners), *followings)


def _als_outcome(plays: Plays, factors: Factors | None) -> str:
    if factors is None:
        return "no listens to learn from"
    shown = f"{len(plays.user_ids):,} users and {int((plays.n_listeners > 0).sum()):,} played tracks"
    return f"{shown} -> {factors.item_factors.shape[1]} factors"


def _sound_outcome(tracks: Tracks, sound: CatalogueSound) -> str:
    if sound.model is None:
        return f"{len(sound.rows):,} vectors came with the tracks" if len(sound.rows) else "no audio"
    n_clips, n_heard = tracks.frame["path"].count(), len(sound.rows)
    without = f", {n_clips - n_heard:,} clips without a vector" if n_heard < n_clips else ""
    return f"{n_heard:,} clips -> vectors ({sound.vectors.shape[1]},) by {sound.model.label}{without}"


def _spaces(sound: CatalogueSound, fitted: FittedParts, plays: Plays) -> dict[Space, SpaceVectors]:
    spaces: dict[Space, SpaceVectors] = {}
    if len(sound.rows):
        spaces["sound"] = SpaceVectors(sound.rows, sound.vectors)
    content_rows = np.flatnonzero(np.abs(fitted.content).sum(axis=1)).astype(np.int32)
    if len(content_rows):
        spaces["content"] = SpaceVectors(content_rows, fitted.content[content_rows])
    if fitted.factors is not None:
        warm = np.flatnonzero(plays.n_listeners).astype(np.int32)
        spaces["taste"] = SpaceVectors(warm, fitted.factors.item_factors[warm])
    return spaces


class InMemory:
    """The tables of a fit that was not published: nothing is stored, and the tracks are described from the input."""

    def __init__(self, tracks: Tracks, plays: Plays, sound: CatalogueSound) -> None:
        self._frame = tracks.frame
        self._row_of = {track_id: row for row, track_id in enumerate(plays.track_ids)}
        self._plays = plays.n_plays
        self._durations = dict(zip(sound.rows.tolist(), sound.durations_s.tolist(), strict=True))

    def recommended(self, user_id: str) -> None:
        """Nothing is stored."""

    def neighbours(self, track_id: str, space: Space) -> None:
        """Nothing is stored."""

    popular = b""  # nothing is stored

    def list_of(self, user_id: str) -> None:
        """Nothing is stored."""

    def neighbours_of(self, track_id: str, space: Space) -> None:
        """Nothing is stored."""

    def track_of_audio(self, content_hash: str) -> None:
        """Nothing is stored."""

    def about(self, track_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Describe tracks from the input."""
        known = {}
        for track_id in track_ids:
            row = self._row_of[track_id]
            fields = self._frame.row(row, named=True)
            about = {name: fields[name] for name in ("track_id", "title", "artist", "album", "genres", "year")}
            duration = self._durations.get(row, np.nan)
            about["duration_s"] = None if np.isnan(duration) else duration
            about["path"], about["plays"] = fields["path"], float(self._plays[row])
            about["is_cold"] = bool(self._plays[row] == 0)
            known[track_id] = about
        return known

    def close(self) -> None:
        """Nothing is open."""
