"""Plays and everything known of the tracks, fitted into the parts that the blend joins.

    Known tracks, Plays  ->  fit_parts  ->  als, wide, mapped, lightfm, labels, content, popularity, new + Encoder

Called on the plays less a few held-out ones to learn the blend's weights, then on all of them.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from recsys.cf.als import ALSSettings, confidence, confidence_scale, fit_als, solve_rows
from recsys.cf.choice import ALSChoice
from recsys.cf.lightfm import LightFMSettings, content_columns, fit_lightfm
from recsys.content.fusion import Modalities
from recsys.content.lyrics import LyricsReader
from recsys.content.metadata import Vocabulary
from recsys.content.targets import targets_of
from recsys.content.train import ContentSettings, fit_content
from recsys.hybrid.blend import NEW, POPULARITY, Part, profile_weights
from recsys.hybrid.encoder import Encoder, LightFMColumns, Scaler, lightfm_features, popularity
from recsys.hybrid.mapping import MapSettings, fit_map
from recsys.hybrid.prior import PriorSettings, exposed_gram, exposure_weight, prior_item_step
from recsys.types import Factors, Float32, Plays, Tags, Tracks
from recsys.util.progress import Progress
from recsys.util.settings import Settings


class WideSettings(Settings):
    """``[hybrid.wide]`` in the run's TOML file: a second ALS, of more factors and stronger belief than rank best alone.

    It errs elsewhere than the first, so that both together rank better; and it has more for content to be mapped to.
    """

    enabled: bool = True
    als: ALSSettings = ALSSettings(n_factors=128, mean_confidence=16.0)


class LabelSettings(Settings):
    """``[hybrid.labels]`` in the run's TOML file: genres, tags, years, artists themselves, beside learned vectors."""

    enabled: bool = True
    dim: int = Field(default=128, ge=1)  # of their random projection


class HybridSettings(Settings):
    """``[hybrid]`` in the run's TOML file: all that learns from plays and content together."""

    als: ALSSettings = ALSSettings()
    choice: ALSChoice = ALSChoice()
    lightfm: LightFMSettings = LightFMSettings()
    content: ContentSettings = ContentSettings()
    prior: PriorSettings = PriorSettings()
    map: MapSettings = MapSettings()
    wide: WideSettings = WideSettings()
    labels: LabelSettings = LabelSettings()

    @model_validator(mode="before")
    @classmethod
    def _chosen_by_hand(cls, data: Any) -> Any:
        """Who says what ALS is to be like has chosen."""
        by_hand = {"n_factors", "l2", "confidence_scale", "mean_confidence"}
        if isinstance(data, dict) and "choice" not in data:
            als = data.get("als") or {}
            given = als.model_fields_set if isinstance(als, ALSSettings) else set(als)
            if by_hand & given:
                return {**data, "choice": {"enabled": False}}
        return data


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
        encoder, from_als = _als_parts(encoder, known, plays, factors, settings, seed, progress)
        parts += from_als
        if settings.lightfm.enabled and plays.counts.nnz <= settings.lightfm.max_pairs:
            encoder, part = _lightfm_part(encoder, known, plays, content, settings, seed, progress)
            parts.append(part)
        elif settings.lightfm.enabled:
            progress.log(
                f"LightFM left out: {plays.counts.nnz:,} pairs are more than lightfm.max_pairs = "
                f"{settings.lightfm.max_pairs:,}"
            )
    if has_plays and settings.labels.enabled and known.vocabulary.n_columns:
        shape = (known.vocabulary.n_columns, settings.labels.dim)
        signs = np.random.default_rng(seed).choice(np.array([-1, 1], dtype=np.int8), shape)
        encoder = replace(encoder, signs=signs)
        parts.append(_profile_part("labels", plays, encoder.labels(known.modalities)))
    if has_content.any():
        parts.append(_profile_part("content", plays, encoder.profile(content)))
    if has_plays:
        everybody = np.ones((len(plays.user_ids), 1), dtype=np.float32)
        column, unplayed = popularity(plays.counts, settings.prior.exposure)
        encoder = replace(encoder, unplayed=unplayed)
        parts.append(Part(POPULARITY, everybody, column, "constant"))
        is_new = (plays.n_listeners == 0)[:, None].astype(np.float32)
        parts.append(Part(NEW, everybody, is_new, "level"))
    return FittedParts(parts, encoder, content, factors)


def _als_parts(
    encoder: Encoder,
    known: Known,
    plays: Plays,
    factors: Factors,
    settings: HybridSettings,
    seed: int,
    progress: Progress,
) -> tuple[Encoder, list[Part]]:
    """ALS, narrow and wide, whose item factors lean on content, and a part of what content alone says of the wide ones.

    In the latter a played track stands where its content puts it, its own plays left out: as new ones do.
    """
    models = {"als": (settings.als, factors)}
    if settings.wide.enabled:
        models["wide"] = (settings.wide.als, fit_als(plays, settings.wide.als, seed, progress))
    items = {name: fitted.item_factors for name, (_, fitted) in models.items()}
    if known.has_content:
        weight = exposure_weight(plays.n_listeners, settings.prior.exposure)
        with progress.bar("map: features to factors", 1, "fits") as bar:
            features, n_artists = encoder.features(known.modalities), len(known.vocabulary.artists)
            factor_map, predicted = fit_map(features, items, weight, n_artists, settings.map, seed)
            bar.advance()
        encoder = replace(encoder, factor_map=factor_map)
        for name, (als, fitted) in models.items():
            items[name] = prior_item_step(plays, fitted.user_factors, predicted[name], als, settings.prior)
        if "wide" in models:
            models["mapped"], items["mapped"] = models["wide"], predicted["wide"]
    return encoder, [_solved(name, plays, items[name], models[name][0], settings.prior) for name in models]


def _solved(name: str, plays: Plays, items: Float32, als: ALSSettings, prior: PriorSettings) -> Part:
    """A part whose user vectors are those that folding in would give."""
    gram, scale = exposed_gram(items, plays.n_listeners, prior), confidence_scale(plays.counts, als)
    users = solve_rows(confidence(plays.counts, scale), items, gram, als.l2)
    users[np.diff(plays.counts.indptr) == 0] = 0
    return Part(name, users, np.ascontiguousarray(items), "solve", gram, als.l2, confidence_scale=scale)


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
    scale = confidence_scale(plays.counts, settings.als)
    return encoder, Part("lightfm", fitted.user_factors, fitted.item_factors, "solve", gram, l2, True, scale)


def _profile_part(name: str, plays: Plays, items: Float32) -> Part:
    """A part whose user vectors are means of the vectors (n_items, d) of what they played."""
    return Part(name, np.asarray(profile_weights(plays.counts) @ items, dtype=np.float32), items, "mean")
