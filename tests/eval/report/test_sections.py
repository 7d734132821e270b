"""Sections of the report: what is drawn, and in which looks."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from eval.report.figures import Point, Points
from eval.report.page import write_report
from eval.report.sections import SectionData, ablation, looks_in
from eval.report.svg import style
from eval.results import FIGURES_SCHEMA, Evaluation
from helpers.made_evaluation import paired, small


@pytest.mark.parametrize(("spread", "drawn"), [(0.1, True), (0.0, False), (1e-9, False)])
def test_popularity_bias_is_drawn_where_models_differ_in_it(tmp_path: Path, spread: float, drawn: bool) -> None:
    bias = [
        (model, "warm", "all", "popularity_percentile", 10, 0.1 + place * spread, 0.1, 0.3, 50)
        for place, model in enumerate(("random", "als", "hybrid"))
    ]
    evaluation = small()
    figures = pl.concat([evaluation.figures, pl.DataFrame(bias, schema=FIGURES_SCHEMA, orient="row")])
    write_report(Evaluation(figures, evaluation.about), tmp_path)
    assert ("against popularity bias, warm" in (tmp_path / "report.html").read_text(encoding="utf-8")) is drawn


@pytest.mark.parametrize("has_test", [True, False])
def test_what_a_modality_adds_has_a_paired_interval(has_test: bool) -> None:
    rows = [("hybrid", 0.5), ("hybrid-without-audio", 0.4)]
    figures = [(model, "warm", "all", "recall", 20, value, 0.1, 0.9, 40) for model, value in rows]
    found = Points.of(pl.DataFrame(figures, schema=FIGURES_SCHEMA, orient="row"))
    noise = np.random.default_rng(0).random(40)
    users = pl.DataFrame({"user_id": [f"u{n}" for n in range(40)], "split": "warm"})
    frame = pl.concat(users.with_columns(model=pl.lit(model), recall=pl.Series(noise + value)) for model, value in rows)
    about = {"tests": [paired(0.1, 0.03, 0.17, 0.01) | {"model": "hybrid-without-audio"}]} if has_test else {}
    drawn: list[dict[str, Point]] = []
    with pytest.MonkeyPatch.context() as patch, style():
        original = __import__("eval.report.charts", fromlist=["draw_differences"]).draw_differences
        patch.setattr(
            "eval.report.charts.draw_differences", lambda points, x: drawn.append(points) or original(points, x)
        )
        assert ablation(SectionData(found, about, frame, looks_in(found))) is not None
    [points] = drawn
    expected = (0.1, 0.03, 0.17) if has_test else (0.1, 0.1, 0.1)  # the same gap for every user: no width
    assert points["audio"][:3] == pytest.approx(expected)


def test_looks_are_few_and_the_same_everywhere(made: Evaluation) -> None:
    looks = looks_in(Points.of(made.figures))
    named = {model for model, look in looks.items() if look.is_named}
    assert {"hybrid", "als", "popularity", "random"} <= named
    assert len(named) == 8
    assert len({(look.colour, look.marker) for look in (looks[model] for model in named)}) == 8
    assert not any(model.startswith("hybrid-without") for model in named)
