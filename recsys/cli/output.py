"""What a person sees: results as tables or JSON on standard output, remarks on standard error.

Everything shown may come from a stranger's file, so it is printed as it is: no markup, no control characters.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from recsys.types import RankedList
from recsys.util.printable import DRIVING, plain

if TYPE_CHECKING:
    from recsys.client import Uploaded
    from recsys.live.add_track import Added


def print_list(found: RankedList, title: str, as_json: bool) -> None:
    """Print a ranked list: a table for people, or one JSON object a line with what is known of each track."""
    if as_json:
        for track in found.tracks:
            reason = {} if track.reason_track_id is None else {"reason_track_id": track.reason_track_id}
            known = {"track_id": track.track_id, "score": track.score, "rank": track.rank}
            print_json(known | reason | track.about)
        return
    rows = [
        (
            t.rank, t.track_id, f"{t.score:.3f}", t.about.get("title", ""), t.about.get("artist", ""),
            "; ".join(t.about.get("genres", [])), t.reason_track_id or "",
        )
        for t in found.tracks
    ]  # fmt: skip
    print_table(title, ["rank", "track", "score", "title", "artist", "genre", "because of"], rows)


def log_shortfall(found: RankedList, user_id: str, k: int) -> None:
    """Tell what a user's list is not: their own, or as long as was asked for."""
    if found.source == "popular":
        log(f"nothing is known of the taste of {user_id!r}: popular tracks")
    if len(found.tracks) < k:
        log(f"{len(found.tracks)} tracks of {k}: the catalogue has no more that may stand in this list")


def print_added(
    added: "Added | Uploaded", near: RankedList, audience: Sequence[tuple[str, float]], as_json: bool
) -> None:
    """Print what became of a new track, what is like it, and who would like it."""
    if as_json:
        print_json({
            "track_id": added.track_id, "known": added.known, "notes": list(added.notes),
            "users_reached": added.users_reached,
            "similar": [track.track_id for track in near.tracks],
            "audience": [{"user_id": user, "margin": margin} for user, margin in audience],
        })  # fmt: skip
        return
    for note in added.notes:
        log(f"note: {note}")
    print(f"{plain(added.track_id)} {'was here already' if added.known else 'added'}")
    print_list(near, f"like {added.track_id}", False)
    if audience:
        print("who would like it: " + ", ".join(plain(user) for user, _ in audience))


def print_json(found: Mapping[str, Any]) -> None:
    """Print one JSON object on a line; what would drive a terminal is escaped, as JSON does."""
    print(DRIVING.sub(lambda one: f"\\u{ord(one[0]):04x}", json.dumps(found, ensure_ascii=False)))


def print_facts(facts: Mapping[str, Any], as_json: bool = False) -> None:
    """Print names and what stands behind them, a line each or as one JSON object."""
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        print(f"{name:<14}{_plain(', '.join(value) if isinstance(value, list) else str(value))}")


def print_table(title: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table, without the columns that are empty; whole lines where nobody is looking."""
    kept = [n for n in range(len(names)) if not rows or any(row[n] not in ("", None) for row in rows)]
    table = Table(title=_plain(title) if title else None)
    for n in kept:
        table.add_column(_plain(names[n]), overflow="fold")
    for row in rows:
        table.add_row(*(_plain("" if row[n] is None else str(row[n])) for n in kept))
    console().print(table)


def _plain(text: str) -> Text:
    """Show data as it is: no markup, no emoji codes, and nothing that would drive the terminal."""
    return Text(plain(text, keep="\n"))


def console() -> Console:
    """Give standard output: lines as long as the window, or long ones where nobody is looking."""
    return Console() if sys.stdout.isatty() else Console(width=200)


def log(line: str, style: str | None = None) -> None:
    """Tell one fact on standard error."""
    Console(stderr=True).print(_plain(line), style=style, soft_wrap=True)


def log_problems(counts: dict[str, int], examples: Sequence[tuple[Any, ...]]) -> None:
    """Tell how many problems of which kind the input had; nothing where there are none.

    Examples are rows of ``PROBLEMS_SCHEMA``: each is told with its file, row and value.
    """
    if not counts:
        return
    counted = ", ".join(f"{n:,} {kind}" for kind, n in counts.items())
    log(f"problems in the input (the rest is used): {counted}", style="yellow")
    for kind, source, row, value, reason in examples:
        shown = "" if value is None or value == source else f" ({value!r})"  # of a file its name is said once
        where = f"{source}{'' if row is None else f' row {row}'}{shown}"
        log(f"  e.g. {kind}: {where}: {reason}".replace("\\\\", "\\"))


def log_build(row: dict[str, Any], store: Path) -> None:
    """Tell what a build came to, from its row of the ``build`` table, and what to do next."""
    counts = row["counts"]
    log(
        f"generation {row['generation']}: {counts['tracks']:,} tracks ({counts['cold_tracks']:,} never played, "
        f"{counts['sound_vectors']:,} with a sound vector), {counts['users']:,} users, {counts['pairs']:,} pairs"
    )
    if counts["problems"]:
        log(f'all problems: recsys sql "SELECT * FROM build_problems" --store {store}')
    log(f"next: recsys recommend USER_ID --store {store}")
