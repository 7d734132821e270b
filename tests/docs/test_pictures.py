"""The pictures are those that the committed figures give, well-formed, a light and a dark one of the same shapes."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.tools import draw_architecture, draw_recall, pictures
from docs.tools.svg import COLOURS
from eval.baselines.registry import NAMES
from helpers.pages import DOCS, README, text_of

REPORTS = sorted(pictures.ASSETS.glob("report-*.json"))


def test_they_are_drawn_from_what_is_committed() -> None:
    files = pictures.files()
    assert {path.name for path in pictures.ASSETS.glob("*.svg")} == {path.name for path in files}
    stale = [path.name for path, text in files.items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run: python -m docs.tools.pictures"


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_light_and_dark_differ_in_colours_alone(name: str) -> None:
    light, dark = (pictures.PICTURES[name](mode).svg() for mode in ("light", "dark"))
    assert light != dark
    assert re.sub(r"#[0-9a-f]{6}", "", light) == re.sub(r"#[0-9a-f]{6}", "", dark)
    root = ElementTree.fromstring(light)
    assert root.find("{http://www.w3.org/2000/svg}title").text


def test_both_pages_have_the_same_colours_by_name() -> None:
    assert COLOURS["light"].keys() == COLOURS["dark"].keys()


def test_the_way_of_the_data_has_twelve_boxes_that_are_all_joined() -> None:
    names = [name for name, *_ in draw_architecture.BOXES]
    assert len(names) == len(set(names)) == 12
    joined = [name for start, end, *_ in draw_architecture.ARROWS for name in (start, end)]
    assert set(joined) == set(names)
    assert len({(column, row) for _, _, column, row, _ in draw_architecture.BOXES}) == 12


def test_the_first_picture_shows_the_hybrid_beside_the_best_baseline_with_intervals() -> None:
    assert REPORTS
    text = draw_recall.draw("light").svg()
    for file in REPORTS:
        report = json.loads(file.read_text(encoding="utf-8"))
        for _, best, ours in draw_recall.pairs(report):
            assert best.low <= best.value <= best.high
            assert ours.low <= ours.value <= ours.high
            others = [row["value"] for row in report["figures"] if row["model"] == best.model]
            assert best.value in others
            assert f"{ours.value:.3f}" in text
            assert f"{best.value:.3f}  {best.model}" in text


def test_the_best_baseline_is_none_of_ours() -> None:
    def row(model: str, split: str, value: float) -> dict[str, object]:
        return {"model": model, "split": split, "metric": "recall", "k": 20, "segment": "all", "value": value} | {
            "ci_low": value - 0.01,
            "ci_high": value + 0.01,
        }

    figures = [
        row(model, split, value)
        for split, _ in draw_recall.SPLITS
        for model, value in (("random", 0.1), ("als", 0.3), ("ridge", 0.2), ("hybrid/als", 0.5), ("hybrid", 0.4))
    ]
    figures += [row("ease", "warm", 0.9) | {"segment": "activity-low"}, row("ease", "warm", 0.9) | {"k": 10}]
    for _, best, ours in draw_recall.pairs({"figures": figures}):
        assert (best.model, best.value) == ("als", 0.3)
        assert (ours.model, ours.value) == ("hybrid", 0.4)


@pytest.mark.parametrize(
    "page", [README, DOCS / "index.md", DOCS / "research/evaluation.md"], ids=lambda page: page.stem
)
def test_pages_say_how_many_baselines_the_first_picture_knows(page: Path) -> None:
    for file in REPORTS:
        models = {row["model"] for row in json.loads(file.read_text(encoding="utf-8"))["figures"]}
        [told] = re.findall(r"(?:each of|each of the) (\d+) baselines", text_of(page))
        [later] = re.findall(r"(?:(\d+) more came since|(\d+) came later)", text_of(page)) or [("0",)]
        assert (int(told), int("".join(later))) == (len(models & set(NAMES)), len(set(NAMES) - models))


def test_the_readme_counts_all_baselines() -> None:
    assert f"beside {len(NAMES)} tuned baselines" in text_of(README)


def test_a_kept_report_draws_what_the_whole_one_draws() -> None:
    whole = json.loads(REPORTS[0].read_text(encoding="utf-8"))
    more = whole["figures"] + [row | {"metric": "ndcg"} for row in whole["figures"]]
    kept = draw_recall.kept(whole | {"figures": more})
    assert kept["figures"] == whole["figures"]
    assert draw_recall.pairs(kept) == draw_recall.pairs(whole)
