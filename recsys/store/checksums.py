"""What a generation's meta.json says of its files, and whether they are still so.

    folder, filled  ->  described  ->  sizes, SHA-256 and checksum in meta.json  ->  check_files, when it is opened
                                                                             ->  check_hashes, one file after another

Sizes are checked of every file when a generation is opened, since a mapped file that was shortened kills its reader;
hashes then of those of up to 4 MiB, which takes some 3 ms a file. Servers check all of them in the background
(``recsys.serving.integrity``). Generations of before hashes are opened as they are.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from recsys.errors import ArtefactError, ChangedError, DamagedError, NewerError
from recsys.store.duckdb_tables import FILE as TABLES
from recsys.store.lmdb_lookup import FILE as LOOKUP
from recsys.util.npy import give_way

FORMAT = 2  # of meta.json and the files beside it; 1 had no hashes
SMALL = 4 << 20  # bytes of a file that is hashed whenever its generation is opened
# A version that knows format 1 alone looks for a file of this name, does not find it, and says so.
NEWER = f"a newer recsys (format {FORMAT})"


def described(generation: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Say what meta.json is to hold: the facts, and beside them format, sizes, hashes and a checksum."""
    known = json.loads(json.dumps(dict(facts), default=str))
    known |= {"format": FORMAT, "files": {**file_sizes(generation), NEWER: 0}, "sha256": file_hashes(generation)}
    return {**known, "checksum": _checksum(known)}


def file_sizes(generation: Path) -> dict[str, int]:
    """Bytes of every file of a generation but meta.json, which holds them, by its name below the folder."""
    return {file.relative_to(generation).as_posix(): file.stat().st_size for file in _files(generation)}


def file_hashes(generation: Path) -> dict[str, str]:
    """SHA-256 of the same files, in hexadecimal digits."""
    return {file.relative_to(generation).as_posix(): hash_of(file) for file in _files(generation)}


def hash_of(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    give_way()
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_facts(facts: Mapping[str, Any], file: Path) -> None:
    """Refuse a meta.json that is of a later format, or is not as it was written.

    Raises:
        NewerError: a newer version wrote it.
        DamagedError: its checksum is another one.
    """
    number = facts.get("format", 1)
    if not isinstance(number, int) or number > FORMAT:
        raise NewerError(
            f"{file} has the format {number}, expected {FORMAT} or less: a newer recsys wrote this generation; "
            "update this one"
        )
    if (number > 1 or "checksum" in facts) and facts.get("checksum") != _checksum(facts):
        raise DamagedError(f"{file} does not match its checksum; roll back or build again")


def check_files(generation: Path, facts: Mapping[str, Any], but: Collection[str] = ()) -> ChangedError | None:
    """Refuse a generation with a file that is missing, of another size, or small and of another content.

    The DuckDB file, which others may open, and by mistake to write, is a reason only where it is gone or shorter.

    Args:
        generation: its folder.
        facts: what meta.json says.
        but: names of files that are not looked at.

    Returns:
        What is to be said of a DuckDB file that was changed since; None where it was not.

    Raises:
        ArtefactError: there is one; the message names it.
    """
    sizes = {name: size for name, size in dict(facts.get("files", {})).items() if name not in but}
    others = {name: size for name, size in sizes.items() if name not in (TABLES, NEWER)}
    check_sizes(generation, others)
    small = {name for name, size in sizes.items() if size <= SMALL}
    check_hashes(generation, facts, small - {TABLES, NEWER})
    tables = generation / TABLES
    try:
        if TABLES in sizes:
            check_sizes(generation, {TABLES: sizes[TABLES]})
            check_hashes(generation, facts, small & {TABLES})
    except ArtefactError:
        if not tables.is_file() or tables.stat().st_size < sizes[TABLES]:
            raise
        return changed(tables)
    return None


def changed(file: Path) -> ChangedError:
    """Say that the DuckDB file is not as it was published."""
    return ChangedError(
        f"{file} was changed since it was published, as by a client that opened it to write; open it read-only, "
        "and build again to have it back"
    )


def check_sizes(generation: Path, expected: Mapping[str, int]) -> None:
    """Refuse a generation with a file that is missing or shorter than it was: mapped ones would kill their reader.

    Raises:
        ArtefactError: there is one; the message names it.
    """
    for name, n_bytes in expected.items():
        file = generation / name
        found = file.stat().st_size if file.is_file() else None
        if found != n_bytes:
            told = "is missing" if found is None else f"has {found:,} bytes, expected {n_bytes:,}"
            raise ArtefactError(f"{file} {told}; roll back or build again")


def check_hashes(
    generation: Path, facts: Mapping[str, Any], names: Collection[str], hashed: Callable[[Path], str] = hash_of
) -> None:
    """Refuse a generation in which one of these files has another content than it was published with.

    Raises:
        DamagedError: there is one; the message names it.
        ArtefactError: one cannot be read.
    """
    known = facts.get("sha256", {})
    for name in names:
        file = generation / name
        try:
            is_whole = name not in known or hashed(file) == known[name]
        except OSError as error:
            raise ArtefactError(f"{file} cannot be read: {error.strerror}; roll back or build again") from error
        if not is_whole:
            raise DamagedError(
                f"{file} is not as it was published: its SHA-256 is another one; roll back or build again"
            )


def _files(generation: Path) -> list[Path]:
    return sorted(file for file in generation.rglob("*") if file.is_file() and file.name != "meta.json")


def _checksum(facts: Mapping[str, Any]) -> str:
    covered = {name: value for name, value in facts.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(covered, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


__all__ = ["LOOKUP", "TABLES", "check_facts", "check_files", "check_hashes", "check_sizes", "described"]
