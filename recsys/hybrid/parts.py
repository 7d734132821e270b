"""Plays and everything known of the tracks, fitted into the parts that the blend joins.

    Known tracks, Plays  ->  fit_parts  ->  als (with the content prior), lightfm, content, popularity + Encoder

Called on the plays less a few held-out ones to learn the blend's weights, then on all of them.
"""

from dataclasses import dataclass, replace

import numpy as np

from recsys.cf.als import ALSSettings, confidence, confidence_scale, fit_als, solve_rows
from recsys.cf.lightfm import LightFMSettings, content_columns, fit_lightfm
from recsys.content.fusion import Modalities
from recsys.content.lyrics import LyricsReader
from recsys.content.metadata import Vocabulary
from recsys.content.targets import targets_of
from recsys.content.train import ContentSettings, fit_content
from recsys.hybrid.blend import POPULARITY, Part, profile_weights
from recsys.hybrid.encoder import Encoder, LightFMColumns, Scaler, lightfm_features, popularity
from recsys.hybrid.prior import (
    PriorSettings,
    exposed_gram,
    exposure_weight,
    fit_prediction,
    prior_item_step,
)
from recsys.progress import Progress
from recsys.settings import Settings
from recsys.types import Factors, Float32, Plays, Tags, Tracks


class HybridSettings(Settings):
    """The settings of all that learns from plays and content together."""

    als: ALSSettings = ALSSettings()
    lightfm: LightFMSettings = LightFMSettings()
    content: ContentSettings = ContentSettings()
    prior: PriorSettings = PriorSettings()


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of the tracks besides plays, encoded once for every fit."""

    tracks: Tracks
    tags: Tags | None
    vocabulary: Vocabulary
    reader: LyricsReader
    modalities: Modalities
    scaler: Scaler | None

    @property
    def has_content(self) -> bool:
        """Whether anything at all is known of any track."""
        return bool(self.modalities.present().any())


@dataclass(frozen=True, slots=True, eq=False)
class FittedParts:
    """The parts with what made them: plain ALS factors (the 'taste' space) and content vectors (n_items, d)."""

    parts: list[Part]
    encoder: Encoder
    content: Float32
    factors: Factors | None


def fit_parts(
    known: Known,
    plays: Plays,
    settings: HybridSettings,
    seed: int,
    progress: Progress,
    factors: Factors | None = None,
) -> FittedParts:
    """Fit every part to ``plays``; ``factors`` are plain ALS factors of the same plays, if they exist already.

    A catalogue without plays has the part 'content' alone; one without content has no such part, and ALS no prior.
    """
    has_plays = plays.counts.nnz > 0
    if has_plays and factors is None:
        factors = fit_als(plays, settings.als, seed, progress)
    item_factors = None if factors is None else factors.item_factors
    n_listeners, n_dislikers = (plays.n_listeners, plays.n_dislikers) if has_plays else (None, None)
    tasks = settings.content.tasks
    targets = targets_of(known.tracks, item_factors, n_listeners, tasks, known.tags, n_dislikers)
    content_model = fit_content(
        known.modalities, targets, known.vocabulary, known.reader, settings.content, seed, progress
    )
    content = content_model.encode(known.modalities)
    has_content = np.abs(content).sum(axis=1) > 0
    mean = content[has_content].mean(axis=0) if has_content.any() else np.zeros(content.shape[1], np.float32)
    encoder = Encoder(content_model, known.scaler, mean, None, None, unplayed=0.0)
    parts: list[Part] = []
    if factors is not None:
        encoder, part = _als_part(encoder, known, plays, factors, content, settings, seed)
        parts.append(part)
        if settings.lightfm.enabled and plays.counts.nnz <= settings.lightfm.max_pairs:
            encoder, part = _lightfm_part(encoder, known, plays, content, settings, seed, progress)
            parts.append(part)
        elif settings.lightfm.enabled:
            progress.say(
                f"LightFM left out: {plays.counts.nnz:,} pairs are more than lightfm.max_pairs = "
                f"{settings.lightfm.max_pairs:,}"
            )
    if has_content.any():
        parts.append(_content_part(encoder, plays, content))
    if has_plays:
        everybody = np.ones((len(plays.user_ids), 1), dtype=np.float32)
        column, unplayed = popularity(plays.counts, settings.prior.exposure)
        encoder = replace(encoder, unplayed=unplayed)
        parts.append(Part(POPULARITY, everybody, column, "constant"))
    return FittedParts(parts, encoder, content, factors)


def _als_part(
    encoder: Encoder,
    known: Known,
    plays: Plays,
    factors: Factors,
    content: Float32,
    settings: HybridSettings,
    seed: int,
) -> tuple[Encoder, Part]:
    """ALS whose item factors lean on content; the user factors are then those that folding in would give."""
    items, n_listeners = factors.item_factors, plays.n_listeners
    if known.has_content:
        features = encoder.features(known.modalities, content)
        n_artists = len(known.vocabulary.artists)
        prediction = fit_prediction(features, items, n_listeners, n_artists, settings.prior, seed)
        encoder = replace(encoder, prediction=prediction)
        weight = exposure_weight(n_listeners, settings.prior.exposure)
        prior = np.where(
            (n_listeners > 0)[:, None], prediction.leave_one_out(features, items, weight), prediction(features)
        )
        items = prior_item_step(plays, factors.user_factors, prior, settings.als, settings.prior)
    gram = exposed_gram(items, n_listeners, settings.prior)
    counts = confidence(plays.counts, confidence_scale(plays.counts, settings.als))
    users = solve_rows(counts, items, gram, settings.als.l2)
    users[np.diff(plays.counts.indptr) == 0] = 0
    return encoder, Part("als", users, items, "solve", gram, settings.als.l2)


def _lightfm_part(
    encoder: Encoder,
    known: Known,
    plays: Plays,
    content: Float32,
    settings: HybridSettings,
    seed: int,
    progress: Progress,
) -> tuple[Encoder, Part]:
    lightfm = settings.lightfm
    columns, centroids = content_columns(content, lightfm.n_centroids, lightfm.nearest_centroids, seed)
    features = lightfm_features(known.modalities, encoder.content, columns)
    fitted, embeddings = fit_lightfm(plays, features, lightfm, seed, progress)
    encoder = replace(encoder, lightfm=LightFMColumns(embeddings, centroids, lightfm.nearest_centroids))
    free = fitted.item_factors[:, :-1]
    gram = exposed_gram(free, plays.n_listeners, settings.prior)
    l2 = 0.01 * float(np.trace(gram)) / len(gram)
    return encoder, Part("lightfm", fitted.user_factors, fitted.item_factors, "solve", gram, l2, bias=True)


def _content_part(encoder: Encoder, plays: Plays, content: Float32) -> Part:
    items = encoder.profile(content)
    users = np.asarray(profile_weights(plays.counts) @ items, dtype=np.float32)
    return Part("content", users, items, "mean")
