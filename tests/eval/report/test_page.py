"""The report as a browser and a reader meet it: whole, self-contained, safe, and no more said than was measured."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from eval.report import summary_text
from eval.report.charts import draw_bars, draw_bias, draw_curve, draw_lines, draw_shares
from eval.report.extras import training
from eval.report.figures import Point, Points, per_user
from eval.report.labels import apart
from eval.report.markup import element
from eval.report.page import page, write_report
from eval.report.sections import SectionData, ablation, looks_in
from eval.report.summary_text import claim, summary
from eval.report.svg import VARIABLES, looks_of, style, svg_of
from eval.results import FIGURES_SCHEMA, Evaluation
from helpers.made_evaluation import KS, NETWORKS, SPLITS, STRENGTHS, made_evaluation

VOID = {"meta", "link", "img", "br"}
SECTIONS = {"summary", "split-1", "split-2", "cold-user", "modalities", "networks", "map", "training", "background"}


class Parsed(HTMLParser):
    """What a browser would make of a page: elements with their attributes, texts, scripts; tags must be balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.bold: list[list[tuple[int, int]]] = []  # rows and columns of bold cells, by table
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
            self.bold.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "b" and "td" in self.open:
            self.bold[-1].append((len(self.tables[-1]) - 1, len(self.tables[-1][-1]) - 1))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts.append(data)
        elif "style" in self.open:
            self.styles.append(data)
        else:
            self.texts.append(data)
            if {"td", "th"} & set(self.open):
                self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def made(out: Path) -> Evaluation:
    evaluation = made_evaluation(out)
    write_report(evaluation, out)
    return evaluation


@pytest.fixture(scope="module")
def html(out: Path, made: Evaluation) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parsed(html: str) -> Parsed:
    return Parsed(html)


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


def test_everything_that_was_measured_is_shown(parsed: Parsed, html: str) -> None:
    sections = [attributes["id"] for attributes in parsed.of("section")]
    assert set(sections) == SECTIONS
    assert sections[0] == "summary"
    assert [link["href"] for link in parsed.of("a")] == [f"#{section}" for section in sections]
    titles = " | ".join(attributes["aria-label"] for attributes in parsed.of("svg"))
    for told in (
        "Recall over k, warm",
        "popularity bias, warm",
        "spread over users, warm",
        "how much users listened",
        "artist is known",
        "how much is known of a new user",
    ):
        assert told in titles
    for told in (
        "4,663 tracks, 64,031 listens",
        "2026-11-25",
        "recsys 0.1.0",
        "bpr on cold-user-10",
        "790,003",
        "p < 0.001 after Holm",
        "min(k, held-out tracks of the user)",
        "tags are given to every fit whole",
    ):
        assert told in parsed.text
    assert parsed.of("img")[0]["src"].startswith("data:image/png;base64,iVBOR")
    assert '"n_factors": 64' in parsed.text
    assert len(html.encode()) < 5_000_000


def test_nothing_is_asked_for_from_outside(parsed: Parsed, html: str) -> None:
    loads = {"src", "href", "xlink:href", "srcset", "action", "poster", "background", "cite", "formaction"}
    for tag, attributes in parsed.elements:
        assert tag not in {"iframe", "object", "embed", "base", "form", "foreignobject"}
        assert not any(name.startswith("on") for name in attributes)
        for name in loads & set(attributes):
            assert attributes[name].startswith(("#", "data:")), (tag, attributes)
    assert [attributes for attributes in parsed.of("script") if attributes] == []
    assert all("url(#" in found for found in re.findall(r"url\([^)]*\)", html))
    assert "@import" not in html
    assert "://" not in html


def test_the_policy_lets_only_the_pages_own_script_run(parsed: Parsed) -> None:
    [policy] = [m["content"] for m in parsed.of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    [script] = parsed.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_ids_are_unique_and_references_lead_somewhere(parsed: Parsed, html: str) -> None:
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = re.findall(r'href="#([^"]+)"', html) + re.findall(r"url\(#([^)]+)\)", html)
    assert used
    assert set(used) <= set(ids)


def test_charts_take_their_colours_from_the_scheme(html: str, parsed: Parsed) -> None:
    charts = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(charts) > 10
    for chart in charts:
        assert re.findall(r"#[0-9a-f]{6}\b", chart) == []
    [css] = parsed.styles
    light, dark = css.split("prefers-color-scheme: dark")
    for variable in VARIABLES.values():
        [bright], [dim] = (re.findall(rf"--{variable}: (#\w+);", part) for part in (light, dark))
        assert bright != dim, variable
    assert all(f"--{variable}: {colour};" in light for colour, variable in VARIABLES.items())


def test_the_same_evaluation_gives_the_same_page(tmp_path: Path) -> None:
    first, second = (page(small({"created_at": "2026-11-25"}), tmp_path) for _ in range(2))
    assert first == second
    assert "<svg" in first
    assert first.count("2026") == 1, "a date in a chart"


EVIL = "<script>alert('x')</script>\" onload=\"$&--><b>"


def test_a_name_from_outside_is_only_text(tmp_path: Path) -> None:
    about = {
        "counts": {EVIL: 3},
        "notes": [EVIL],
        "formulas": {EVIL: EVIL},
        "versions": {"recsys": EVIL},
        "unfinished": [EVIL],
        "settings": {EVIL: EVIL},
        "splits": [{"protocol": EVIL, "note": EVIL}],
        "networks": {EVIL: {"label": EVIL}},
        "curves": {EVIL: [{"epoch": 1, f"cost {EVIL}": 1.0}, {"epoch": 2, f"cost {EVIL}": 0.5}]},
        "tests": [{"model": EVIL, "split": "warm", "metric": "recall@10", "difference": 0.1}],
        "created_at": EVIL,
    }
    rows = [*small(rename={"als": EVIL, "warm": EVIL}).figures.rows(), *small(rename={"als": EVIL}).figures.rows()]
    rows += [(EVIL, "representation", "mp3", "recall", 1, 0.5, 0.4, 0.6, 9)]
    text = page(Evaluation(pl.DataFrame(rows, schema=FIGURES_SCHEMA, orient="row"), about), tmp_path)
    found = Parsed(text)
    assert len(found.of("script")) == 1
    assert "alert" not in found.scripts[0]
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    assert found.text.count("alert('x')") >= 15
    assert "<!--" not in text


def test_the_best_is_bold_and_ours_stands_out(parsed: Parsed, html: str) -> None:
    table, bold = parsed.tables[1], parsed.bold[1]
    assert table[0][:3] == ["model", "recall@20", "NDCG@20"]
    assert [row[0] for row in table[1:3]] == ["hybrid-without-lyrics", "hybrid"]
    values = [float(row[1].split()[0]) for row in table[1:]]
    assert values == sorted(values, reverse=True)
    for column in range(1, len(table[0])):
        of_column = [float(row[column].split()[0]) for row in table[1:]]
        rows = [row for row, place in bold if place == column]
        assert rows
        assert all(of_column[row - 1] == max(of_column) for row in rows)
    assert "±0.00" in table[1][1]
    rows = re.findall(r'<tr class="ours"><th[^>]*>([^<]*)', html)
    assert len(rows) >= len(SPLITS)
    assert set(rows) == {"hybrid"}


def test_every_model_split_and_k_has_its_numbers(parsed: Parsed) -> None:
    heads = [cell for table in parsed.tables for cell in table[0]]
    n_lists = len(SPLITS)
    for k in KS:
        assert heads.count(f"recall@{k}") == n_lists
        assert heads.count(f"gini@{k}") == n_lists
    names = [row[0] for table in parsed.tables for row in table[1:]]
    assert all(names.count(model) >= n_lists * len(KS) for model in STRENGTHS)
    assert all(names.count(network) == 3 for network in NETWORKS)
    assert not any("diversity" in head for head in heads), "a column of NaN"


@pytest.mark.parametrize(
    ("figures", "about"),
    [
        ([], {}),
        ([("als", "warm", "all", "recall", 5, None, None, None, None)], {}),
        ([("als", "warm", "all", "recall", 5, float("nan"), float("nan"), None, 3)], {"tests": None}),
        ([("als", "warm", "all", "recall", 5, 0.0, None, None, 3)], {"curves": {}, "networks": {}}),
        ([("hybrid", "warm", "all", "ndcg", 5, 0.2, 0.1, 0.3, 3)], {"splits": [], "notes": []}),
        ([("hybrid", "cold-user-3", "all", "recall", 5, 0.2, 0.1, 0.3, 3)], {"tests": [{"model": "als"}]}),
        ([("hybrid", "cold-user-x", "all", "recall", 5, 0.2, 0.1, 0.3, 3)], {}),
        ([("hybrid", "warm", "artist-known", "recall", 5, 0.2, 0.1, 0.3, 3)], {}),
        ([("mfcc", "representation", "tags", "roc_auc", None, 0.6, None, None, 9)], {"networks": {"mfcc": {}}}),
        ([], {"curves": {"a": [], "b": [{"epoch": 1}], "c": [{"epoch": 1, "cost": None}]}}),
    ],
)
def test_what_is_not_there_leaves_no_hole(
    tmp_path: Path, figures: list[tuple[object, ...]], about: dict[str, Any]
) -> None:
    text = page(Evaluation(pl.DataFrame(figures, schema=FIGURES_SCHEMA, orient="row"), about), tmp_path)
    found = Parsed(text)
    assert "nan" not in found.text.lower().replace("finance", "").split()
    assert "None" not in found.text
    for empty in ("<ul></ul>", "<tbody></tbody>", "<dl></dl>", '<div class="charts"></div>'):
        assert empty not in text
    assert len(found.of("h1")) == 1


def test_files_of_another_run_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "map.png").write_bytes(b"\x89PNG of an earlier run")
    (tmp_path / "per_user.parquet").write_bytes(b"no parquet")
    text = page(small(), tmp_path)
    assert "<img" not in text
    assert "spread over users" not in text
    users = {"user_id": ["a", "b"], "split": ["warm", "warm"], "model": ["als", "gone"], "recall@10": [0.5, 1.0]}
    pl.DataFrame(users).write_parquet(tmp_path / "per_user.parquet")
    kept = per_user(tmp_path, Points.of(small().figures))
    assert kept is not None
    assert kept.rows() == [("a", "warm", "als", 0.5)]
    pl.DataFrame({"user_id": ["a"]}).write_parquet(tmp_path / "per_user.parquet")
    assert per_user(tmp_path, Points.of(small().figures)) is None


def paired(difference: float, low: float, high: float, p: float) -> dict[str, Any]:
    of = {"model": "als", "split": "warm", "metric": "recall@10"}
    return of | {"difference": difference, "ci_low": low, "ci_high": high, "p": p / 3, "p_holm": p}


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (paired(0.1, 0.05, 0.15, 0.001), "beats"),
        (paired(-0.1, -0.15, -0.05, 0.001), "falls behind"),
        (paired(0.1, -0.01, 0.2, 0.001), "cannot be told apart from"),
        (paired(0.1, 0.05, 0.15, 0.06), "cannot be told apart from"),
        ({"difference": 0.1, "ci_low": 0.05, "ci_high": 0.15}, "cannot be told apart from"),
    ],
)
def test_words_claim_what_the_test_allows(test: dict[str, Any], words: str) -> None:
    assert claim(test) == words
    if "p_holm" in test:
        [told] = summary(Points.of(small().figures), {"tests": [test]})
        assert (
            f"The hybrid, at 0.400, {words} the best baseline, <code>als</code> at 0.300: {test['difference']:+.3f}"
            in told
        )
        assert "1.33 times as much" in told
        assert "after Holm" in told


def test_the_best_without_features_is_told_beside_the_best() -> None:
    best = paired(0.1, 0.05, 0.15, 0.001) | {"is_best_baseline": True}
    on_plays = paired(0.35, 0.3, 0.4, 0.2) | {"model": "random", "is_best_without_features": True}
    [told] = summary(Points.of(small().figures), {"tests": [best, on_plays]})
    words = "cannot be told apart from the best baseline without features of tracks, <code>random</code> at 0.110"
    assert "beats the best baseline, <code>als</code>" in told
    assert f"The hybrid, at 0.400, {words}: +0.350 (+0.300 to +0.400)" in told
    [same] = summary(Points.of(small().figures), {"tests": [best | {"is_best_without_features": True}]})
    assert "That baseline reads no features of tracks." in same
    assert "without features" not in same
    [older] = summary(Points.of(small().figures), {"tests": [best]})
    assert "features" not in older


def test_the_table_of_tests_has_ratios_and_marks_the_best(tmp_path: Path) -> None:
    best = paired(0.1, 0.05, 0.15, 0.001) | {"is_best_baseline": True, "ratio": 1.25, "ratio_ci_low": 1.1}
    both = best | {"is_best_without_features": True, "ratio_ci_high": 1.4}
    found = Parsed(page(Evaluation(small().figures, {"tests": [both, paired(0, -1, 1, 1)]}), tmp_path))
    [table] = [table for table in found.tables if "p (Holm)" in table[0]]
    row = dict(zip(table[0][-9:], table[1][-9:], strict=True))
    assert (row["ratio"], row["p (Holm)"]) == ("1.250", "0.001")
    assert table[1][table[0].index("ratio") + 1 :][:2] == ["1.100", "1.400"]
    assert row["which is"] == "best baseline, best without features"
    assert table[2][-1] == ""


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (0.4, 0.3, "1.33 times as much"),
        (0.4, 0.04, "10.00 times as much"),
        (0.4, 0.039, ""),
        (0.4, 0.0, ""),
        (0.0, 0.3, ""),
    ],
)
def test_a_ratio_is_told_unless_it_is_out_of_all_proportion(ours: float, theirs: float, told: str) -> None:
    points = (Point(value, value, value, 9) for value in (ours, theirs))
    said = summary_text._ratio(*points, {})
    assert said == (f", {told}" if told else "")


def test_words_without_a_test_claim_nothing() -> None:
    [told] = summary(Points.of(small().figures), {})
    assert "the best is <code>hybrid</code> at 0.400 (0.300–0.500)" in told
    assert "this run has no paired test" in told
    assert "beats" not in told


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(0.001, 0.1))
def test_labels_are_a_gap_apart_in_order(values: list[float], gap: float) -> None:
    values = sorted(values)
    places = apart(values, gap, 0, 1)
    assert len(places) == len(values)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(places))
    assert min(places) >= 0
    assert max(places) <= 1 + 1e-9
    if all(b - a >= gap for a, b in pairwise(values)):
        assert places == pytest.approx(values)


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


def test_an_svg_keeps_its_names_to_itself() -> None:
    with style():
        figure = draw_curve([1, 2], {"a<b & c": [2, 1]})
        svg = svg_of(figure, "chart-1", "a<b")
    assert "<title>a&lt;b</title>" in svg
    assert "a&lt;b &amp; c" in svg
    assert "<style" not in svg
    assert "metadata" not in svg
    assert all(name.startswith("chart-1-") for name in re.findall(r'\bid="([^"]+)"', svg))


def test_elements_escape_all_but_markup() -> None:
    assert element("p", "<b>", element("b", "&"), None, title='"') == '<p title="&quot;">&lt;b&gt;<b>&amp;</b></p>'
    assert element("img", src="data:,", alt=None, hidden=True) == '<img src="data:," hidden>'
    assert element("p", "\ud800") == "<p>?</p>"
