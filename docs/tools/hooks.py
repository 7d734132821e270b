"""The site's build: markers in pages in, what the code says out.

    <!-- generated: cli -->           a part of the reference, written by a module beside this one
    <!-- include: ARCHITECTURE.md --> a page of the repository's top, its links made to fit
    <!-- include: README.md try -->   the part of it between <!-- try --> and <!-- /try -->
    <picture> … </picture>            a picture with a light and a dark file, which here follow the site's switch

mkdocs calls ``on_page_markdown`` for each page (``hooks`` in ``mkdocs.yml``). A marker that names nothing ends the
build.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docs.tools import reference_cli, reference_errors, reference_grpc, reference_metrics, reference_settings

ROOT = Path(__file__).parents[2]
PARTS: dict[str, Callable[[], str]] = {
    "cli": reference_cli.markdown,
    "settings": reference_settings.markdown,
    "grpc": reference_grpc.markdown,
    "metrics": reference_metrics.markdown,
    "errors": reference_errors.markdown,
}
PAGES = {"ARCHITECTURE.md": "explanation/architecture.md", "CONTRIBUTING.md": "contributing.md"}
_GENERATED = re.compile(r"^<!-- generated: (\w+) -->$", flags=re.MULTILINE)
_INCLUDED = re.compile(r"^<!-- include: (\w+\.md)(?: (\w+))? -->$", flags=re.MULTILINE)
_PICTURE = re.compile(r'<picture>.*?<img alt="([^"]*)" src="([^"]*)-light\.svg"[^>]*>\s*</picture>', flags=re.DOTALL)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page's text with its markers filled in."""
    up = "../" * page.file.src_uri.count("/")
    markdown = _INCLUDED.sub(lambda found: included(found[1], up, found[2]), markdown)
    markdown = _PICTURE.sub(r"![\1](\2-light.svg#only-light)\n![\1](\2-dark.svg#only-dark)", markdown)
    return filled(markdown)


def filled(markdown: str) -> str:
    """A text with the reference parts that its markers name.

    Raises:
        KeyError: a marker names no part.
    """
    return _GENERATED.sub(lambda found: PARTS[found[1]](), markdown)


def included(name: str, up: str, part: str | None = None) -> str:
    """A page of the repository's top without its title, or a part of it; links into ``docs/`` lead to the site's pages.

    Raises:
        LookupError: the page has no such part.
    """
    text = (ROOT / name).read_text(encoding="utf-8")
    if part is not None:
        found = re.search(rf"<!-- {part} -->(.*?)<!-- /{part} -->", text, flags=re.DOTALL)
        if found is None:
            raise LookupError(f"{name} has no part <!-- {part} --> ... <!-- /{part} -->")
        text = found[1]
    text = re.sub(r"\A# .*\n", "", text)
    for page, place in PAGES.items():
        text = text.replace(f"]({page})", f"](docs/{place})")
    text = re.sub(r'(\]\(|src="|srcset=")docs/', rf"\1{up}", text)
    # what is in the repository and not on the site is named, and not linked
    return re.sub(r"\[([^\]]+)\]\((?!http|#|(?:\.\./)*(?:[\w-]+/)*[a-z-]+\.md)[^)]+\)", r"\1", text)
