"""`recsys serve` as others run it: a tree of processes, which a test may look into, kill and start anew."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import grpc

from helpers.forked import Forked
from helpers.places import ROOT
from recsys.v1.recommender_pb2_grpc import RecommenderStub

START_S = 60.0
# the process that embeds uploads imports torch for seconds of a core, so it is there where a test asks for it
PLAIN = """
import sys
from recsys.cli.main import main
from recsys.uploads import embed_client
for module in (embed_client, sys.modules.get("recsys.serving.workers")):  # which `serve` imports, unless it is forked
    if module is not None:
        module.can_embed = lambda: False
main()
"""
SOON = [(f"grpc.{which}_reconnect_backoff_ms", 100) for which in ("initial", "min", "max")]


class Serve:
    """A server's parent process; what it and its workers write to stderr is kept."""

    def __init__(self, store: Path, workers: int = 2, listen: str = "127.0.0.1:0", before: Sequence[str] = (),
                 options: Sequence[str] = (), embed: bool = False) -> None:  # fmt: skip
        """Start it, by way of the command ``before``, and wait until it serves or ends."""
        arguments = ["serve", "--store", str(store), "--listen", listen, "--workers", str(workers), *options]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        if embed or before:
            how = ["-m", "recsys"] if embed else ["-c", PLAIN]
            self.process: Forked | subprocess.Popen[str] = subprocess.Popen(
                [*before, sys.executable, *how, *arguments], cwd=ROOT, text=True, start_new_session=True,
                stdout=subprocess.PIPE, stderr=self._log,
            )  # fmt: skip
        else:
            self.process = Forked(PLAIN, *arguments, errors=self._log)
        self.n_workers = workers
        self._warm = not embed
        line = self.process.stdout.readline()
        self.address = line.split(" on ")[1].split()[0] if line else ""

    @property
    def log(self) -> str:
        """What was written to stderr until now, or until the end."""
        if not self._log.closed:
            self._known = os.pread(self._log.fileno(), 1 << 24, 0).decode()
        return self._known

    def children(self) -> dict[int, str]:
        """Command lines of the processes below the parent, by their ids."""
        found = {}
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            try:
                found[int(child)] = Path(f"/proc/{child}/cmdline").read_text()
            except OSError:  # it has ended meanwhile
                continue
        return {child: line for child, line in found.items() if line}

    def workers(self) -> list[int]:
        """Ids of the workers that are there."""
        if not self._warm:  # until it runs its own command, it looks like one of them
            self.embedder()
            self._warm = True
        return [child for child, line in self.children().items() if "recsys.uploads.embed_server" not in line]

    def embedder(self, limit_s: float = 30.0) -> int:
        """Id of the embedding process, which starts after the workers serve."""
        found = list[int]()

        def is_there() -> bool:
            found[:] = [child for child, line in self.children().items() if "recsys.uploads.embed_server" in line]
            return bool(found)

        assert eventually(is_there, limit_s), "there is no embedding process"
        return found[0]

    def kill(self) -> None:
        """Kill parent and workers at once, as a machine that stops does; the embedding process then ends itself."""
        if self._log.closed:
            return
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        self._known = self.log
        self._log.close()

    def stop(self) -> int:
        """End it, gently if it still runs; gives its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.kill()
        return self.process.returncode


@contextmanager
def serve(
    store: Path, workers: int = 2, before: Sequence[str] = (), options: Sequence[str] = (), embed: bool = False
) -> Iterator[Serve]:
    """A server that answers, for the length of a block; with ``embed`` it takes uploads too."""
    server = Serve(store, workers, before=before, options=options, embed=embed)
    try:
        assert server.address, server.log
        yield server
    finally:
        server.stop()


def refused_start(store: Path, limit_s: float = 30.0) -> tuple[int, str]:
    """Exit status and stderr of a server that does not start."""
    command = [sys.executable, "-m", "recsys", "serve", "--store", str(store), "--listen", "127.0.0.1:0"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit_s)
    assert ran.stdout == ""
    return ran.returncode, ran.stderr


@contextmanager
def stub_of(address: str) -> Iterator[RecommenderStub]:
    """A connection of its own, which the kernel gives to any worker, and which is soon made anew when it breaks."""
    with closing(grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1), *SOON])) as channel:
        yield RecommenderStub(channel)


def eventually(happened, within_s: float = 20.0) -> bool:
    """Whether something happens within that time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(0.05)
    return False


def ended(pid: int, limit_s: float = 20.0) -> bool:
    """Whether a process ends within that time; one that nobody has waited for has ended too."""

    def has_ended() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    return eventually(has_ended, limit_s)
