"""A made-up evaluation that has everything a report can show, for tests and for looking at."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from eval.metrics.accuracy import FORMULAS, USER_METRICS
from eval.report.figures import REPRESENTATION
from eval.report.sections import POPULARITY_BIAS
from eval.results import FIGURES_SCHEMA, Evaluation

KS = (5, 20)
N_USERS = 300
STRENGTHS = {
    "random": 0.01,
    "popularity": 0.10,
    "item-knn-cosine": 0.24,
    "item-knn-tfidf": 0.245,
    "item-knn-bm25": 0.255,
    "bpr": 0.21,
    "als": 0.279,
    "ease": 0.273,
    "lightfm": 0.22,
    "lightfm-features": 0.24,
    "content-profile": 0.2,
    "artist-mean": 0.18,
    "ridge": 0.26,
    "dropoutnet": 0.23,
    "hybrid/als": 0.29,
    "hybrid/lightfm": 0.25,
    "hybrid/content": 0.23,
    "hybrid/popularity": 0.10,
    "hybrid": 0.31,
    "hybrid-without-audio": 0.302,
    "hybrid-without-tags": 0.26,
    "hybrid-without-lyrics": 0.311,
}
SPLITS = ("warm", "cold-track", "cold-user-10", "cold-user-1")
SEGMENTS = {
    "warm": (
        "activity-low",
        "activity-middle",
        "activity-high",
        "popularity-low",
        "popularity-middle",
        "popularity-high",
    ),
    "cold-track": ("artist-known", "artist-unknown"),
}
# as in eval.representation.figures, which would load torch
VECTOR_FIGURES = (
    *((probe, "genre_accuracy", 10 if probe == "knn" else None) for probe in ("logistic", "lda", "svm", "knn")),
    ("nearest", "artist_accuracy", 1),
    ("centroid", "artist_accuracy", None),
    *((segment, "same_genre", 10) for segment in ("all", "fold")),
    *((segment, "same_artist", 1) for segment in ("all", "fold")),
    *((distortion, "recall", 1) for distortion in ("shift", "noise-20dB", "noise-10dB", "louder", "mp3", "band")),
    ("tags", "average_precision", None),
    ("tags", "roc_auc", None),
)
NETWORKS = ("musicnn-head", "musicnn", "conv1d-taught", "conv1d", "conv1d-gru", "dense", "untrained", "mfcc")

Row = tuple[object, ...]


def made_evaluation(out: Path) -> Evaluation:
    """Make it, and the files that a run leaves in ``out`` before the report is written."""
    rng = np.random.default_rng(0)
    rows = [row for split in SPLITS for row in _of_split(split, rng)] + _of_networks(rng)
    _per_user(rng).write_parquet(out / "per_user.parquet")
    figure = Figure(figsize=(3, 2))
    figure.add_subplot().scatter(rng.random(50), rng.random(50))
    figure.savefig(out / "map.png")
    return Evaluation(pl.DataFrame(rows, schema=FIGURES_SCHEMA, orient="row"), _about())


def small(changes: dict[str, Any] | None = None, rename: dict[str, str] | None = None) -> Evaluation:
    """Three models on one split at two k, and nothing more."""
    rows = [
        (model, "warm", "all", "recall", k, value + k / 100, value, value + 0.2, 50)
        for model, value in (("random", 0.01), ("als", 0.2), ("hybrid", 0.3))
        for k in (5, 10)
    ]
    figures = pl.DataFrame(rows, schema=FIGURES_SCHEMA, orient="row")
    if rename:
        figures = figures.with_columns(pl.col("model", "split").replace(rename))
    return Evaluation(figures, changes or {})


def paired(difference: float, low: float, high: float, p: float) -> dict[str, Any]:
    """A test of the hybrid against als on it, by recall@10; ``p`` is after Holm."""
    of = {"model": "als", "split": "warm", "metric": "recall@10"}
    return of | {"difference": difference, "ci_low": low, "ci_high": high, "p": p / 3, "p_holm": p}


def _of_split(split: str, rng: np.random.Generator) -> list[Row]:
    scale = 0.4 + 0.5 * rng.random()
    rows: list[Row] = []
    for n, (model, strength) in enumerate(STRENGTHS.items()):
        for k in KS:
            level = strength * scale * (k / 20) ** 0.6
            for metric in USER_METRICS:
                value = level * (1 if metric == "recall" else 0.6 + 0.3 * rng.random())
                rows.append((model, split, "all", metric, k, value, value - 0.008, value + 0.009, N_USERS))
            percentile = 0.5 if model == "random" else 0.99 - 0.02 * (n % 9) - k / 1000
            rows.append((model, split, "all", "coverage", k, 0.9 - strength, None, None, N_USERS))
            rows.append((model, split, "all", "gini", k, 0.3 + strength, None, None, N_USERS))
            rows.append(
                (model, split, "all", POPULARITY_BIAS, k, percentile, percentile - 0.004, percentile + 0.004, 9)
            )
            rows.append((model, split, "all", "novelty", k, 12.5 - strength, 12.0, 13.0, N_USERS))
            rows.append((model, split, "all", "diversity", k, float("nan"), None, None, N_USERS))
            for m, segment in enumerate(SEGMENTS.get(split, ())):
                value = level * (0.7 + 0.15 * (m % 3))
                rows.append((model, split, segment, "recall", k, value, value - 0.015, value + 0.015, N_USERS // 3))
    return rows


def _of_networks(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for n, network in enumerate(NETWORKS):
        for segment, metric, k in VECTOR_FIGURES:
            value = float(np.clip(0.95 - 0.08 * n - 0.3 * rng.random(), 0, 1))
            ends = (max(value - 0.05, 0), min(value + 0.05, 1))
            rows.append((network, REPRESENTATION, segment, metric, k, value, *ends, 297))
    return rows


def _per_user(rng: np.random.Generator) -> pl.DataFrame:
    users = [f"u{n}" for n in range(N_USERS)]
    frames = []
    for split in SPLITS:
        for model, strength in STRENGTHS.items():
            values = rng.binomial(20, np.clip(rng.beta(1.2, 1.2 / strength - 1.2, N_USERS), 0, 1)) / 20
            columns: dict[str, Any] = {"user_id": users, "split": split, "model": model, "recall@20": values}
            frames.append(pl.DataFrame(columns))
    return pl.concat(frames)


def _about() -> dict[str, Any]:
    epochs = np.arange(1, 31)
    curve = [
        {
            "epoch": int(epoch),
            "held-out cost": float(1.6 + 2 * np.exp(-epoch / 6) + 0.004 * epoch),
            "training cost": float(1.5 + 2 * np.exp(-epoch / 7)),
            "seconds": 1.2,
        }
        for epoch in epochs
    ]
    tests = [
        {
            "model": model,
            "split": split,
            "metric": "recall@20",
            "difference": 0.31 - strength,
            "ci_low": 0.31 - strength - 0.01,
            "ci_high": 0.31 - strength + 0.01,
            "ratio": 0.31 / strength,
            "ratio_ci_low": 0.31 / strength - 0.02,
            "ratio_ci_high": 0.31 / strength + 0.02,
            "p": 0.00001 if strength < 0.28 else 0.2,
            "p_holm": 0.0002 if strength < 0.28 else 0.4,
            "is_best_baseline": model == "als",
            "is_best_without_features": model == "als",
        }
        for split in SPLITS
        for model, strength in STRENGTHS.items()
        if model != "hybrid" and split != "cold-track"
    ]
    networks = {
        name: {
            "label": f"{name} as it is",
            "n_parameters": 790_000 + n,
            "fit_seconds": [1.5, 2.5],
            "embed_ms": 40.5 + n,
        }
        for n, name in enumerate(NETWORKS)
    }
    return {
        "created_at": "2026-11-25T10:00:00+00:00",
        "counts": {"tracks": 4663, "listens": 64031},
        "generation": None,
        "seconds": 3600.5,
        "settings": {"evaluate": {"ks": list(KS)}, "fit": {"cf": {"n_factors": 64}}},
        "formulas": dict(FORMULAS),
        "notes": ["tags are given to every fit whole", "value is the mean over users"],
        "versions": {"recsys": "0.1.0", "python": "3.11.2", "torch": "not installed"},
        "splits": [
            {
                "protocol": "warm",
                "seed": 0,
                "note": "a random 20% is held out",
                "fit_seconds": 31.2,
                "rank_seconds": {"warm als": 1.5},
            }
        ],
        "tests": tests,
        "networks": networks,
        "curves": {"warm, seed 0: content": curve, "warm, seed 0: audio": curve},
        "unfinished": ["bpr on cold-user-10"],
    }
