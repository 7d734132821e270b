"""Every picture of the README and the site, from figures that are committed: ``python -m docs.tools.pictures``.

``python -m docs.tools.pictures report.json NAME`` first keeps of an evaluation's report what the pictures need, as
``docs/assets/report-NAME.json``.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from docs.tools import draw_architecture, draw_recall, draw_research
from docs.tools.svg import Drawing, write

ASSETS = Path(__file__).parents[1] / "assets"
PICTURES: dict[str, Callable[[str], Drawing]] = {
    "architecture": draw_architecture.draw,
    "recall": draw_recall.draw,
    "results": draw_research.results,
    "cost-of-new": draw_research.cost_of_new,
    "networks": draw_research.networks,
}


def files() -> dict[Path, str]:
    """Every file of a picture, and what belongs into it."""
    return {path: text for name, draw in PICTURES.items() for path, text in write(ASSETS, name, draw).items()}


def main(arguments: list[str]) -> None:
    """Keep a report if one is given, then draw everything."""
    if arguments:
        report, name = arguments
        kept = draw_recall.kept(json.loads(Path(report).read_text(encoding="utf-8")))
        text = json.dumps(kept, indent=1, ensure_ascii=False)
        (ASSETS / f"report-{name}.json").write_text(text + "\n", encoding="utf-8")
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
