"""``recsys demo``: everything, on a small catalogue that it composes itself.

    compose -> scan -> listeners -> build -> evaluate -> serve and call -> similar, SQL -> upload

Music and listeners are simulated, and it says so; the path they take is the real one, command for command.
"""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
from rich.console import Console
from rich.table import Table

from eval.results import recall_table
from eval.run import evaluate
from eval.settings import EvaluationSettings
from eval.splitting.split import SplitSettings
from pipelines.build import Inputs, build, read_catalogue
from pipelines.synth import SynthSettings, compose, fans, write_listens
from recsys.audio.networks.frozen import remembered_features
from recsys.audio.settings import AudioSettings, HeadSettings
from recsys.catalogue.problems import Problems
from recsys.catalogue.scan import scan, write_table
from recsys.config import RunSettings
from recsys.errors import ArtefactError
from recsys.live.add_track import NewTrack, add_track
from recsys.recommender import Recommender
from recsys.store.duckdb_tables import FILE, query
from recsys.store.generation import Store
from recsys.types import RankedList
from recsys.util.progress import Progress
from recsys.v1 import recommender_pb2, recommender_pb2_grpc

MARK = "SIMULATED.txt"  # stands in a folder that the demo made, which it may therefore make anew
SQL = """SELECT t.artist, count(*) AS lists, round(avg(r.rank), 1) AS mean_rank
FROM recommendations r JOIN tracks t USING (track_id)
WHERE t.is_cold AND r.rank <= 50 GROUP BY t.artist ORDER BY lists DESC, t.artist LIMIT 5"""


def demo(out: Path, progress: Progress, settings: SynthSettings | None = None) -> None:
    """Run the whole tour.

    Args:
        out: folder for the simulated catalogue, its store and the evaluation; made anew if a demo made it.
        progress: where stages report.
        settings: size of the simulation.

    Raises:
        ArtefactError: ``out`` holds something that no demo made, or a step failed.
    """
    settings, console = settings or SynthSettings(), Console()
    _clear(out)
    _head(console, "1. A catalogue: simulated music and simulated listeners with planted tastes (nothing here is real)")
    composed = compose(out, settings, progress)
    problems = Problems()
    tracks = scan(out / "audio", problems, progress)
    write_table(tracks, out / "tracks.parquet")
    write_listens(tracks, out / "listens.csv", settings)
    inputs = Inputs(out / "tracks.parquet", out / "listens.csv")
    _head(console, "2. Build: listen to every clip, learn tastes, publish lists")
    store = out / "store"
    with remembered_features():  # the evaluation hears the same clips as the build
        counts = build(inputs, store, _settings(), progress).build["counts"]
        console.print(
            f"{counts['tracks']} tracks ({counts['cold_tracks']} never played), {counts['users']} simulated listeners, "
            f"{counts['listens']:,} simulated listens",
            highlight=False,
        )
        _head(console, "3. Evaluation on held-out simulated listens (planted tastes: says that it works, not how well)")
        _evaluate(console, inputs, out, progress)
    _head(console, "4. Serve, and call over gRPC")
    user_id = _some_user(store)
    _call(console, store, user_id)
    _head(console, f"5. The same list of {user_id}, with reasons")
    recommender = Recommender.open(store)
    found = recommender.recommend(user_id, 8)
    _show(console, found, recommender)
    track_id = found.tracks[0].track_id
    _head(console, f"6. What is like {track_id}")
    _show(console, recommender.similar(track_id, 5), recommender)
    _head(console, "7. Any SQL on the tables: which artists' never-played tracks reach people's top 50")
    console.print(SQL, highlight=False)
    names, rows = query(Store(store).current() / FILE, SQL)
    _table(console, names, rows)
    recommender.close()
    _head(console, "8. A new clip is uploaded: nobody has ever played it")
    _upload(console, store, composed.upload, set(fans(settings)), counts["users"])
    _farewell(console, out)


def _clear(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise ArtefactError(f"{out} holds something else; give another folder with --out")
        shutil.rmtree(out)


def _evaluate(console: Console, inputs: Inputs, out: Path, progress: Progress) -> None:
    settings = _settings()
    catalogue = read_catalogue(inputs, settings, Problems())
    found = evaluate(
        catalogue.tracks,
        catalogue.listens,
        catalogue.tags,
        settings=settings,
        evaluation_settings=EvaluationSettings(
            protocols=("warm", "cold-track"), ks=(10, 20), splits=SplitSettings(n_splits=1)
        ),
        out=out / "evaluation",
        progress=progress,
    )
    console.print(recall_table(found.figures))


def _some_user(store: Path) -> str:
    """Pick the listener with the median number of plays."""
    sql = "SELECT user_id FROM users WHERE plays > 0 ORDER BY plays, user_id"
    _, rows = query(Store(store).current() / FILE, sql)
    return str(rows[len(rows) // 2][0])


@contextmanager
def _server(store: Path) -> Iterator[str]:
    """Run ``recsys serve`` in a process of its own; gives its address."""
    command = [sys.executable, "-m", "recsys", "serve", "--store", str(store), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if " on " not in line:
                raise ArtefactError("the server did not start; its message is above")
            yield line.split(" on ")[1].split()[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)


def _call(console: Console, store: Path, user_id: str) -> None:
    with _server(store) as address, grpc.insecure_channel(address) as channel:
        stub = recommender_pb2_grpc.RecommenderStub(channel)  # type: ignore[no-untyped-call]  # generated
        answer = stub.Recommend(recommender_pb2.RecommendRequest(user_id=user_id, k=3), timeout=10)
        console.print(f"Recommend(user_id={user_id!r}, k=3) at {address} answers:", highlight=False)
        console.print(str(answer).rstrip(), highlight=False)


def _upload(console: Console, store: Path, audio: Path, planted: set[str], n_users: int) -> None:
    added = add_track(store, audio, NewTrack())
    recommender = Recommender.open(store)
    about = recommender.track(added.track_id)
    console.print(
        f"{about['title']} by {about['artist']} ({'; '.join(about['genres'])}) is {added.track_id}; most like it:",
        highlight=False,
    )
    _show(console, recommender.similar(added.track_id, 3), recommender)
    audience = recommender.audience(added.track_id, 20)
    hits = sum(user in planted for user, _ in audience)
    console.print(
        f"Who would like it: {', '.join(user for user, _ in audience[:6])}, …\n{hits} of the first {len(audience)} have"
        f" it in their planted taste, as {len(planted)} of all {n_users} do.",
        highlight=False,
    )
    recommender.close()


def _show(console: Console, found: RankedList, recommender: Recommender) -> None:
    rows = []
    for track in found.tracks:
        reason = None if track.reason_track_id is None else recommender.track(track.reason_track_id)
        about = track.about
        because = "" if reason is None else f"{reason['title']} by {reason['artist']}"
        rows.append(
            (track.rank, about["title"], about["artist"], "; ".join(about["genres"]), f"{track.score:.2f}", because)
        )
    _table(console, ["rank", "title", "artist", "genre", "score", "because of"], rows)


def _table(console: Console, names: list[str], rows: Sequence[Sequence[object]]) -> None:
    table = Table()
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*(str(value) for value in row))
    console.print(table, highlight=False, markup=False)


def _head(console: Console, text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]", highlight=False)


def _farewell(console: Console, out: Path) -> None:
    _head(console, "Now with your own music:")
    console.print(
        "recsys scan ~/Music --out tracks.parquet\n"
        "recsys build --tracks tracks.parquet --listens listens.csv --store mystore   (the listens are optional)\n"
        "recsys similar TRACK_ID --store mystore\n"
        "recsys recommend USER_ID --store mystore\n"
        "recsys serve --store mystore --listen 127.0.0.1:50051\n"
        f"Everything simulated is in {out}; what was just shown can be asked again with --store {out / 'store'}.",
        highlight=False,
        markup=False,
    )


def _settings() -> RunSettings:
    """Give the defaults, but one augmented copy of a clip in place of three: the tour should take minutes."""
    head = HeadSettings(copies=HeadSettings().copies[:1])
    return RunSettings(audio=AudioSettings(head=head))
