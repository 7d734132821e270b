"""The store's folder: generations that are written beside, checked, and made current by one rename.

    store/
      CURRENT                    text: the id of the generation that answers
      generations/<id>/          never changed after publishing
        recommendations.duckdb   the truth, open to anyone's SQL
        arrays/  models/  meta.json
      live.lmdb  uploads/        what was uploaded, heard and deleted since
      journal/                   listens of before, as Parquet
      cache/                     finished sound vectors
      build.lock  live.lock

A folder that is being written ends in ``.partial`` and is nobody's generation. Old generations are deleted only after
the new one is current. What a kill leaves behind is cleared by the next build.
"""

import errno
import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from recsys.errors import ArtefactError, FullDiskError
from recsys.util.files import replace_text, sync_folder, sync_tree

PARTIAL = ".partial"
ID = "%Y%m%dT%H%M%S.%fZ"  # of a generation: when it was begun
FULL = {errno.ENOSPC, errno.EDQUOT}  # no room on the disk, or none for this user
UPLOAD_LIMIT_S = 3600  # no upload takes that long


class Store:
    """Paths and locks of one store folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.generations = folder / "generations"
        self.uploads = folder / "uploads"
        self.cache = folder / "cache"
        self.live = folder / "live.lmdb"
        self.journal = folder / "journal"

    def current(self) -> Path:
        """The folder of the current generation.

        Raises:
            ArtefactError: nothing was published here, or CURRENT names a generation that is gone.
        """
        name = self.current_name()
        try:
            return self.generation(name)
        except ArtefactError as error:
            raise ArtefactError(
                f"{self.folder}/CURRENT names the generation {name!r}, which is not there; build again"
            ) from error

    def current_name(self) -> str:
        """Read what CURRENT says, whether or not there is such a generation.

        Raises:
            ArtefactError: nothing was published here.
        """
        try:
            return (self.folder / "CURRENT").read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            raise ArtefactError(
                f"{self.folder} holds no published generation; make one with `recsys build --store {self.folder} …`"
            ) from error

    def before(self, name: str) -> list[str]:
        """Ids of the generations that were begun before one, newest first; none where that is no id at all."""
        try:
            datetime.strptime(name, ID)
        except ValueError:
            return []
        return [earlier for earlier in reversed(self.names()) if earlier < name]

    def names(self) -> list[str]:
        """Ids of the generations that are there, oldest first."""
        if not self.generations.is_dir():
            return []
        return sorted(p.name for p in self.generations.iterdir() if p.is_dir() and p.suffix != PARTIAL)

    def generation(self, name: str) -> Path:
        """The folder of a generation.

        Raises:
            ArtefactError: there is none of that name.
        """
        if name not in self.names():
            raise ArtefactError(f"{self.folder} has no generation {name!r}; it has {', '.join(self.names()) or 'none'}")
        return self.generations / name

    def has_current(self) -> bool:
        """Whether a generation was published here."""
        return (self.folder / "CURRENT").exists()

    def begin(self) -> Path:
        """Make the folder of a new generation, to be filled and then given to ``publish``; clears what kills left.

        Call it under the build lock.
        """
        self.generations.mkdir(parents=True, exist_ok=True)
        for left in self.generations.glob(f"*{PARTIAL}"):
            shutil.rmtree(left)
        files = (*self.folder.glob(".CURRENT.*.tmp"), *self.folder.glob("CURRENT.*.tmp"), *self.journal.glob(".*.tmp"))
        for left in files:  # written under the lock that the caller holds
            left.unlink()
        for left in self.uploads.glob(".*"):  # the copy of an upload that was killed; a running one is younger
            if left.stat().st_mtime < time.time() - UPLOAD_LIMIT_S:
                left.unlink()
        name = datetime.now(UTC).strftime(ID)
        partial = self.generations / f"{name}{PARTIAL}"
        partial.mkdir()
        return partial

    def publish(self, partial: Path) -> Path:
        """Make a filled and checked folder the current generation; durable when this returns."""
        for file in partial.rglob("*"):
            if file.is_file():
                file.chmod(0o444)  # nobody writes to it again, by mistake neither
        sync_tree(partial)
        folder = partial.with_suffix("")
        partial.rename(folder)
        sync_folder(self.generations)
        self.make_current(folder.name)
        return folder

    def make_current(self, name: str) -> None:
        """Have a generation answer from now on, by one rename; durable when this returns."""
        replace_text(self.folder / "CURRENT", f"{name}\n")

    def prune(self, keep: int) -> list[str]:
        """Delete all but the newest ``keep`` generations, never the current one; returns the ids that went."""
        current = self.current().name
        old = [name for name in self.names()[:-keep] if name != current]
        for name in old:
            going = self.generations / f"{name}{PARTIAL}"  # a kill on the way leaves nothing that looks whole
            (self.generations / name).rename(going)
            shutil.rmtree(going)
        return old

    @contextmanager
    def build_lock(self) -> Iterator[None]:
        """Hold the store for one build.

        Raises:
            ArtefactError: another build holds it, or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = (self.folder / "build.lock").open("a")
        except OSError as error:
            raise ArtefactError(f"cannot write to the store {self.folder}: {error.strerror}") from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ArtefactError(f"another build is running on {self.folder}; wait until it ends") from error
            yield

    @contextmanager
    def live_lock(self) -> Iterator[None]:
        """Hold the live store for a moment: an upload is written, or a generation becomes current, never both."""
        with (self.folder / "live.lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Say a full disk or a failed write in one sentence.

    Raises:
        ArtefactError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        is_full = error.errno in FULL
        reason = "the disk is full" if is_full else (error.strerror or str(error))
        message = f"{doing} failed: {reason}; what was published before is still in use"
        raise (FullDiskError if is_full else ArtefactError)(message) from error
