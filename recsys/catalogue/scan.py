"""A folder of audio in, the tracks table out.

    folder  ->  scan  ->  frame in ``SCAN_SCHEMA``, a row a file  ->  write_table  ->  table

Tags inside the files are read in limited processes (``recsys.catalogue.tags``), as a file may be made to harm; no
sound is decoded, so that a damaged recording with good tags is left for the build to find. A track id is made of the
file's name and a hash of its path below the folder: it can be read, and it stays when the folder moves or tags are
mended, but not when the file is renamed.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import polars as pl

from recsys.catalogue.problems import Problems
from recsys.catalogue.tables import SEPARATORS
from recsys.catalogue.tags.fields import Inside
from recsys.catalogue.tags.kinds import HEAD_BYTES, marked_kind
from recsys.catalogue.tags.pool import TagReaders
from recsys.errors import DataError
from recsys.util.files import replace
from recsys.util.progress import Progress
from recsys.util.threads import n_cores

__all__ = ["AUDIO_SUFFIXES", "SCAN_SCHEMA", "scan", "track_id_of", "write_table"]

AUDIO_SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        "mp3", "mp2", "m4a", "m4b", "mp4", "aac", "flac", "ogg", "oga", "opus", "spx", "wav", "w64", "aif", "aiff",
        "aifc", "au", "snd", "caf", "wma", "wv", "ape", "mpc", "tta", "dsf", "mka", "webm", "weba", "ac3", "eac3",
    )
)  # fmt: skip
SCAN_SCHEMA = pl.Schema(
    dict.fromkeys(("track_id", "path", "title", "artist", "album", "genre", "year", "lyrics"), pl.String())
)
WRITTEN_SUFFIXES = (".parquet", *SEPARATORS, ".jsonl", ".ndjson")
MAX_NAME_CHARS = 48  # of the file's name in a track id
BLOCK_FILES = 10_000  # files whose tags exist as Python objects at a time
FILES_A_READER = 200  # with fewer, another process would take longer to start than to read them
MAX_TOLD_SUFFIXES = 8
MAX_SUFFIX_CHARS = 12
_OFTEN_FILMS = frozenset({"mp4", "matroska", "asf"})  # a film's sound is no track


def scan(folder: Path, problems: Problems, progress: Progress) -> pl.DataFrame:
    """Find the audio below a folder, in the order of its paths, and read its tags.

    Hidden names and what has no audio suffix are passed over, which is told; links are followed, each folder once.
    A file without a title goes by its name, and so does one whose tags cannot be read, which is a problem.

    Returns:
        A row a file in ``SCAN_SCHEMA``; ``path`` is absolute, ``genre`` joined by ``;``.

    Raises:
        DataError: it is no folder, or there is no audio in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give the folder that holds the music")
    others: Counter[str] = Counter()
    mislabelled: Counter[str] = Counter()
    files = [file for file in _files(folder, problems, others, mislabelled) if _is_there(file, problems)]
    _say_passed_over(progress, others, mislabelled)
    if not files:
        kinds = " ".join(sorted(AUDIO_SUFFIXES))
        raise DataError(f"{folder} holds no audio files ({kinds}); give the folder that holds the music")
    n_workers = min(n_cores(), -(-len(files) // FILES_A_READER))
    blocks = []
    with progress.bar("reading tags", len(files), "files") as bar, TagReaders(n_workers) as readers:
        read = zip(files, readers.read(files), strict=True)
        while block := list(islice(read, BLOCK_FILES)):
            rows = []
            for file, inside in block:
                rows.append(_row(file, folder, inside, problems))
                bar.advance()
            blocks.append(pl.DataFrame(rows, schema=SCAN_SCHEMA, orient="row"))
    return _with_distinct_ids(pl.concat(blocks), problems)


def write_table(frame: pl.DataFrame, out: Path) -> None:
    """Write a table in the form that the suffix names: beside its place first, then moved there.

    A ``path`` below the table's own folder is written relative to it, so that music and table can move as
    one. Any other stays absolute: a table elsewhere says nothing about where the music is.

    Raises:
        DataError: the suffix is unknown, or the file cannot be written.
    """
    form = out.suffix.lower()
    if form not in WRITTEN_SUFFIXES:
        raise DataError(f"{out} is no known form of table; use one of {' '.join(WRITTEN_SUFFIXES)}")
    if "path" in frame.columns:
        here = os.path.abspath(out.parent).rstrip(os.sep) + os.sep
        frame = frame.with_columns(pl.col("path").str.strip_prefix(here))

    def write(beside: Path) -> None:
        if form == ".parquet":
            frame.write_parquet(beside)
        elif form in SEPARATORS:
            frame.write_csv(beside, separator=SEPARATORS[form])
        else:
            frame.write_ndjson(beside)

    try:
        replace(out, write)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{out} cannot be written ({error}); choose another place or form") from error


def _files(folder: Path, problems: Problems, others: Counter[str], mislabelled: Counter[str]) -> Iterator[Path]:
    """Walk the folder in the order of names; a folder reached twice, through links, is walked once.

    What has no audio suffix is counted by its suffix: in ``mislabelled`` where it begins as audio does, else in
    ``others``.
    """
    seen: set[tuple[int, int]] = set()

    def unreadable(error: OSError) -> None:
        problems.add("unreadable-folder", str(error.filename), None, None, f"not looked into: {error.strerror}")

    for top, folders, names in os.walk(os.path.abspath(folder), onerror=unreadable, followlinks=True):
        at = os.stat(top)
        if (at.st_dev, at.st_ino) in seen:
            folders.clear()
            continue
        seen.add((at.st_dev, at.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            file = Path(top, name)
            suffix = file.suffix.lower()
            if suffix in AUDIO_SUFFIXES:
                yield file
            else:
                (mislabelled if _begins_as_audio(file) else others)[suffix] += 1


def _begins_as_audio(file: Path) -> bool:
    try:
        if not file.is_file():  # opening a pipe would wait for ever
            return False
        with file.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
    except (OSError, ValueError):
        return False
    return head.startswith(b"ID3") or marked_kind(head) not in {None, *_OFTEN_FILMS}


def _say_passed_over(progress: Progress, others: Counter[str], mislabelled: Counter[str]) -> None:
    if mislabelled:
        progress.log(f"passed over, though it begins as audio does (rename it to be read): {_told(mislabelled)}")
    if others:
        progress.log(f"passed over: {_told(others)}")


def _told(counts: Counter[str]) -> str:
    """Tell counts by suffix, the commonest first."""
    named = [f"{n:,} {_shown(suffix)}" for suffix, n in counts.most_common(MAX_TOLD_SUFFIXES)]
    rest = counts.total() - sum(n for _, n in counts.most_common(MAX_TOLD_SUFFIXES))
    return ", ".join([*named, *([f"{rest:,} others"] if rest else [])])


def _shown(suffix: str) -> str:
    """Make a suffix safe for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in suffix[:MAX_SUFFIX_CHARS]) or "without a suffix"


def _is_there(file: Path, problems: Problems) -> bool:
    """Whether a file can be read, by its name and by what it is; else that is a problem."""
    path = str(file)
    try:
        path.encode()
    except UnicodeEncodeError:
        problems.add("bad-text", path, None, path, "the file's name is not UTF-8; rename it")
        return False
    if not file.is_file():
        reason = "this is not a regular file" if file.exists() else "a link to a file that is not there"
        problems.add("missing-file", path, None, path, reason)
        return False
    return True


def _row(file: Path, folder: Path, inside: Inside, problems: Problems) -> tuple[str | None, ...]:
    """Make one file's row of what its tags say; what is wrong with them is a problem."""
    path = str(file)
    for note in inside.notes:
        problems.add("bad-tags", path, None, path, note)
    title = inside.tags.get("title") or file.stem
    rest = (inside.tags.get(name) for name in SCAN_SCHEMA.names()[3:])
    return track_id_of(os.path.relpath(path, os.path.abspath(folder))), path, title, *rest


def track_id_of(path: str) -> str:
    """Make a track id of a path below the scanned folder, such as ``teardrop-0b1f4c2a9d3e``.

    Accents may be stored in one character or two, as file systems differ; the id is the same.
    """
    normal = unicodedata.normalize("NFC", path.replace(os.sep, "/"))
    name = re.sub(r"[\W_]+", "-", Path(normal).stem.casefold()).strip("-")[:MAX_NAME_CHARS]
    code = hashlib.blake2b(normal.encode(), digest_size=6).hexdigest()
    return f"{name}-{code}" if name else code


def _with_distinct_ids(frame: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    """Drop files whose names are one and the same but for how accents are stored."""
    again = frame.filter(~pl.col("track_id").is_first_distinct())
    for file, track_id in again.select("path", "track_id").iter_rows():
        problems.add("duplicate-id", file, None, track_id, "another file of the folder has this name")
    return frame.unique("track_id", keep="first", maintain_order=True)
