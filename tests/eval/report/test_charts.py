"""Charts: names that cover no other, values where they belong, and none without something to tell."""

from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from eval.report.charts import draw_bars, draw_bias, draw_curve, draw_lines, draw_shares
from eval.report.extras import training
from eval.report.figures import Point
from eval.report.svg import looks_of, style


def texts_of(figure: Any) -> list[Any]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    return [(text.get_text(), Text.get_window_extent(text, canvas.get_renderer())) for text in texts]


def test_names_cover_no_other_name_and_are_not_cut() -> None:
    models = ["hybrid", "als", "ease", "ridge", "popularity", "random"]
    close = {model: Point(0.3 + n / 5000, 0.29, 0.31, 9) for n, model in enumerate(models)}
    with style():
        looks = looks_of(models)
        lines = draw_lines(["5", "10"], {m: [p, p] for m, p in close.items()}, looks, "k", "recall@k")
        plane = draw_bias({m: (p, p) for m, p in close.items()}, looks, "bias", "recall")
        for figure in (lines, plane):
            boxes = texts_of(figure)
            assert sorted(name for name, _ in boxes) == sorted(models)
            for n, (name, box) in enumerate(boxes):
                assert figure.bbox.contains(box.x0, box.y0), name
                assert figure.bbox.contains(box.x1, box.y1), name
                assert not any(box.shrunk(0.95, 0.8).overlaps(other.shrunk(0.95, 0.8)) for _, other in boxes[n + 1 :])


def test_shares_are_of_users_with_at_least_that_recall() -> None:
    with style():
        figure = draw_shares({"als": np.array([0.0, 0.0, 0.5, 0.5, 1.0])}, looks_of(["als"]), "recall", "share")
    [line] = figure.axes[0].lines
    x, y = line.get_data()
    for recall, share in ((0.25, 3 / 5), (0.5, 3 / 5), (0.75, 1 / 5), (1.0, 1 / 5)):
        assert y[np.searchsorted(x, recall, side="left")] == pytest.approx(share)  # the step before a point is its own
    assert line.get_drawstyle() == "steps-pre"
    assert figure.legends[0].get_texts()[0].get_text() == "als 0.400"


def test_bars_show_their_points_the_best_on_top() -> None:
    groups = {"known": {"als": Point(0.3, 0.2, 0.4, 9), "hybrid": Point(0.5, 0.4, 0.6, 9)}, "unknown": {}}
    with style():
        axes = draw_bars(groups, "recall").axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["als", "hybrid"]
    assert [bar.get_width() for bar in axes.patches] == [0.3, 0.5]
    assert [line.get_xdata().tolist() for line in axes.lines] == [[0.2, 0.4], [0.4, 0.6]]


@pytest.mark.slow
def test_a_curve_marks_the_lowest_held_out_cost() -> None:
    with style():
        axes = draw_curve([1, 2, 3], {"held-out cost": [3, 1, 2], "training cost": [3, 2, 0.5]}).axes[0]
    assert axes.lines[-1].get_data()[0] == [2]
    assert [text.get_text() for text in axes.texts] == ["1.000"]
    with style():
        shown = training(
            {"curves": {f"net {n}": [{"epoch": 1, "cost": 2.0}, {"epoch": 2, "cost": 1.0}] for n in range(14)}}
        )
    assert shown is not None
    assert shown.count("<svg") == 14
    assert "<summary>2 more</summary>" in shown
