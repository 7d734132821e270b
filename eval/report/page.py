"""An evaluation and its folder in, ``report.html`` out: one file that opens offline.

    Evaluation, OUT  ->  page  ->  sections in the order in which a reader asks  ->  report.html

Styles, the one script and every picture are inside the file. Its content security policy forbids everything else, so a
name that slipped through as markup could neither run nor load anything. The same evaluation gives the same bytes.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from eval.report import extras
from eval.report.figures import COLD_USER, Points, per_user
from eval.report.markup import Html, element
from eval.report.sections import SectionData, ablation, cold_users, looks_in, split_section
from eval.report.summary_text import summary
from eval.report.svg import style
from eval.results import Evaluation, write_beside

REPORT = "report.html"
_TITLE = "Evaluation"
_HEADING = re.compile(r'<section id="([^"]+)"><h2>(.*?)</h2>')


def write_report(evaluation: Evaluation, out: Path) -> None:
    """Write ``report.html`` into the folder ``out``, with what else the run left there.

    Raises:
        ArtefactError: the folder cannot be written.
    """
    text = page(evaluation, out)
    write_beside(out / REPORT, lambda path: path.write_text(text, encoding="utf-8"))


def page(evaluation: Evaluation, out: Path) -> str:
    """Make the page; ``per_user.parquet`` and ``map.png`` are taken from ``out`` where they are of this run."""
    about = evaluation.about
    with style():
        sections = [part for part in _sections(evaluation, out) if part is not None]
    script = _asset("page.js")
    sources = {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "script-src": f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element(
            "meta",
            http_equiv="Content-Security-Policy",
            content="; ".join(f"{name} {value}" for name, value in sources.items()),
        ),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{_TITLE}: recsys"),
        element("style", Html(_asset("page.css"))),
    )
    main = element("main", *sections)
    body = element("body", _header(about), _contents(sections), main, element("script", Html(script)))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _sections(evaluation: Evaluation, out: Path) -> list[Html | None]:
    """Make all parts in their order, None for what this evaluation does not have."""
    found, about = Points.of(evaluation.figures), evaluation.about
    material = SectionData(found, about, per_user(out, found), looks_in(found))
    of_new_users = [s for s in found.splits() if s.startswith(COLD_USER) and s.removeprefix(COLD_USER).isdecimal()]
    others = [split for split in found.splits() if split not in of_new_users]
    parts = [
        *(split_section(material, split, f"split-{n}") for n, split in enumerate(others, 1)),
        cold_users(material, of_new_users),
        ablation(material),
        extras.networks(found, about),
        extras.catalogue_map(about, out),
        extras.training(about),
    ]
    return [_summary(found, about), *parts, _background(about)]


def _header(about: Mapping[str, Any]) -> Html:
    """Say on what, when and with what this was measured."""
    counts = about.get("counts") or {}
    on = ", ".join(f"{n:,} {name}" for name, n in counts.items() if isinstance(n, int) and n)
    versions = about.get("versions") or {}
    seconds = about.get("seconds")
    facts = [
        about.get("created_at"),
        f"store generation {about['generation']}" if about.get("generation") else None,
        ", ".join(f"{name} {versions[name]}" for name in ("recsys", "python") if name in versions),
        f"took {seconds / 60:,.1f} min" if isinstance(seconds, int | float) else None,
    ]
    line = " · ".join(str(fact) for fact in facts if fact)
    title = element("h1", f"{_TITLE} on {on}" if on else _TITLE)
    return element("header", title, element("p", line, class_="note") if line else None)


def _contents(sections: Sequence[Html]) -> Html | None:
    """Link to every section by its heading."""
    heads = [match for match in map(_HEADING.match, sections) if match is not None]
    return element("nav", *(element("a", Html(head[2]), href=f"#{head[1]}") for head in heads)) if heads else None


def _summary(found: Points, about: Mapping[str, Any]) -> Html | None:
    """Say in words what came out, and what did not finish."""
    sentences = summary(found, about)
    unfinished = about.get("unfinished") or []
    parts = [element("ul", *(element("li", sentence) for sentence in sentences)) if sentences else None]
    if unfinished:
        names = ", ".join(map(str, unfinished))
        parts.append(element("p", element("b", "Did not finish, so not compared: "), names, class_="warning"))
    parts.append(extras.paired_tests(about))
    known = [part for part in parts if part is not None]
    return element("section", element("h2", "What came out"), *known, id="summary") if known else None


def _background(about: Mapping[str, Any]) -> Html | None:
    known = [part for part in extras.background(about) if part is not None]
    return element("section", element("h2", "How it was measured"), *known, id="background") if known else None


def _asset(name: str) -> str:
    return files("eval.report").joinpath(name).read_text(encoding="utf-8")
