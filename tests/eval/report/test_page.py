"""The report as a browser and a reader meet it: whole, self-contained, safe, and no more said than was measured."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from eval.report.figures import Points, per_user
from eval.report.page import page
from eval.report.svg import VARIABLES
from eval.results import FIGURES_SCHEMA, Evaluation
from helpers.made_evaluation import small
from helpers.parsed_page import Parsed

SECTIONS = {"summary", "split-1", "split-2", "cold-user", "modalities", "networks", "map", "training", "background"}


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
