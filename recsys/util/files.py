"""Files that are replaced as a whole: written beside their place, on the disk, then put there by one rename.

    file, what writes it  ->  replace  ->  the new file; a reader, and a kill, meet the old one or this

Folders are made durable by ``sync_folder`` (the names in one) and ``sync_tree`` (all below one).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def replace(file: Path, write: Callable[[Path], object]) -> None:
    """Replace a file, durably; the folder must be there.

    Args:
        file: the place; what a link there points to is not followed.
        write: writes the path that it is given, which lies in the same folder, and may check what it wrote. Where it
            raises, the old file stays and nothing is left behind.

    Raises:
        OSError: the disk is full, or the folder cannot be written; and whatever ``write`` raises.
    """
    beside = file.with_name(f".{file.name[:200]}.{os.getpid()}.tmp")
    try:
        beside.unlink(missing_ok=True)
        write(beside)
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(file)
    finally:
        with suppress(OSError):  # a name that is too long cannot even be looked for
            beside.unlink(missing_ok=True)
    sync_folder(file.parent)


def replace_text(file: Path, text: str) -> None:
    """Replace a small file of text, in UTF-8."""
    replace(file, lambda beside: beside.write_text(text, encoding="utf-8"))


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make all files below a folder durable."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        else:
            sync_folder(file)
    sync_folder(folder)


@contextmanager
def moved(file: Path | None, to: Path) -> Iterator[None]:
    """Move a file to its place, durably, and take it away again if the block fails, unless it was there before.

    None is a file that is there already.
    """
    was_there = to.exists()
    if file is not None and not was_there:
        file.replace(to)
        sync_folder(to.parent)
    try:
        yield
    except BaseException:
        if not was_there:
            to.unlink(missing_ok=True)
        raise
