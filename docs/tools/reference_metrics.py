"""What a server's metrics port writes in, a table of its metrics out."""

import re

from recsys.serving.metrics import BOUNDS_S, Board
from recsys.serving.prometheus import exposition
from recsys.v1 import recommender_pb2 as pb

WATCHED = ("built_at", "backlog", "behind", "damaged_values", "damaged_files", "lists_behind", "failed_lookups")


def markdown() -> str:
    """A row for each metric: name, kind, labels, help."""
    rows = [f"| `{name}` | {kind} | {labels} | {message} |" for name, kind, labels, message in metrics()]
    bounds = ", ".join(f"{bound:g}" for bound in BOUNDS_S)
    table = "\n".join(["| metric | kind | labels | what |", "|---|---|---|---|", *rows])
    return f"{table}\n\nThe bounds of the histogram are {bounds} seconds."


def metrics() -> list[tuple[str, str, str, str]]:
    """Name, kind, labels and help of all metrics, from a server's figures in which everything was met once."""
    methods = [method.name for method in pb.DESCRIPTOR.services_by_name["Recommender"].methods]
    board = Board(1, methods)
    meter = board.meter(0)
    meter.ended(methods[0], 0, 0, BOUNDS_S[0])
    meter.watch(**dict.fromkeys(WATCHED, lambda: 1.0))
    meter._ask()
    text = exposition(board).decode()
    help_of = dict(re.findall(r"^# HELP (\S+) (.*)$", text, flags=re.MULTILINE))
    found = []
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", text, flags=re.MULTILINE):
        sample = re.search(rf"^{name}(?:_bucket)?\{{(.*?)\}}", text, flags=re.MULTILINE)
        labels = [label for label in re.findall(r'(\w+)="', sample[1] if sample else "") if label != "le"]
        found.append((name, kind, ", ".join(labels), help_of[name]))
    return found
