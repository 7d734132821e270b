"""``recsys demo``: everything, on a small catalogue that it composes itself.

    compose -> scan -> listeners -> build -> a list, similar tracks -> upload -> serve and call -> SQL -> evaluate

Music and listeners are simulated, and it says so; the path they take is the real one, command for command.
"""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import grpc
import polars as pl
from rich.console import Console
from rich.table import Table

from eval.results import recall_table
from eval.run import evaluate
from eval.settings import EvaluationSettings
from eval.splitting.split import SplitSettings
from pipelines.build import Inputs, build, read_catalogue
from pipelines.synth import Composed, SynthSettings, compose, fans, tastes, write_listens
from pipelines.synth.genres import GENRE_NAMES
from recsys.audio.networks.frozen import remembered_features
from recsys.audio.settings import AudioSettings, HeadSettings, TrainSettings
from recsys.catalogue.problems import Problems
from recsys.catalogue.scan import scan, write_table
from recsys.cf.choice import ALSChoice
from recsys.config import RunSettings
from recsys.errors import ArtefactError
from recsys.hybrid.parts import HybridSettings
from recsys.live.add_track import NewTrack, add_track
from recsys.recommender import Recommender
from recsys.store.duckdb_tables import FILE, query
from recsys.store.generation import Store
from recsys.types import RankedList
from recsys.util.progress import LOG_WIDTH, Progress
from recsys.v1 import recommender_pb2, recommender_pb2_grpc

MARK = "SIMULATED.txt"  # stands in a folder that the demo made, which it may therefore make anew
# what shows as much as a large catalogue does, in a minute: the clips are two patches of the audio network
SIZE = SynthSettings(n_tracks=160, n_artists=32, clip_s=6.0, n_users=300, n_listens=9000)
JUDGED = ("random", "popularity", "hybrid")  # what the screen shows; the report has all models
SQL = """SELECT t.artist, count(*) AS lists, round(avg(r.rank), 1) AS mean_rank
FROM recommendations r JOIN tracks t USING (track_id)
WHERE t.is_cold AND r.rank <= 20 GROUP BY t.artist ORDER BY lists DESC, t.artist LIMIT 5"""


def demo(out: Path, progress: Progress, settings: SynthSettings | None = None) -> None:
    """Run the whole tour: results on standard output, a line a stage where ``progress`` reports.

    Args:
        out: folder for the simulated catalogue, its store and the evaluation; made anew if a demo made it.
        progress: where stages report.
        settings: size of the simulation.

    Raises:
        ArtefactError: ``out`` holds something that no demo made, or a step failed.
    """
    settings = settings or SIZE
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    _clear(out)
    console.print(
        "Everything here is simulated: the music, its artists, its listeners and their tastes.\n"
        "The path that it takes is the real one, command for command.",
        highlight=False,
    )
    store = out / "store"
    with remembered_features():  # what comes later hears the same clips as the build
        composed, inputs = _catalogue(console, out, settings, progress)
        _head(console, "2. Build: hear every clip, learn tastes, publish lists")
        n_users = build(inputs, store, _settings(), progress).build["counts"]["users"]
        user_id = _some_user(store)
        _recommend(console, store, user_id, settings)
        _upload(console, store, composed.upload, set(fans(settings)), n_users, progress)
        _call(console, store, user_id, progress)
        _sql(console, store)
        _evaluate(console, inputs, out, progress)
    _farewell(console, out, composed.upload)


def _catalogue(console: Console, out: Path, settings: SynthSettings, progress: Progress) -> tuple[Composed, Inputs]:
    """Compose music, scan it as a person's folder is scanned, and let simulated listeners hear it for a year."""
    _head(console, "1. A catalogue: simulated music and simulated listeners with planted tastes")
    with progress.stage("compose") as stage:
        composed = compose(out, settings, progress)
        genres = {song.artist.genre.name for song in composed.plan.songs}
        clips = f"{settings.n_tracks} clips of {settings.clip_s:g} s"
        stage.done(f"{clips} by {settings.n_artists} invented artists in {len(genres)} genres")
    inputs = Inputs(out / "tracks.parquet", out / "listens.csv")
    with progress.stage("scan") as stage:
        tracks = scan(composed.audio, Problems(), progress)
        write_table(tracks, inputs.tracks)
        stage.done(f"tags and words of {len(tracks)} files -> {inputs.tracks}")
    with progress.stage("listeners") as stage:
        listens = write_listens(tracks, out / "listens.csv", settings)
        n_new = sum(song.is_new for song in composed.plan.songs)
        stage.done(f"{len(listens):,} listens of {settings.n_users} people; {n_new} tracks nobody has heard")
    return composed, inputs


def _recommend(console: Console, store: Path, user_id: str, settings: SynthSettings) -> None:
    who = tastes(settings)
    taste = who.genres[who.user_ids.index(user_id)]
    planted = ", ".join(f"{taste[row]:.0%} {GENRE_NAMES[row]}" for row in taste.argsort()[::-1][:3])
    recommender = Recommender.open(store)
    _head(console, f"3. What {user_id} would like, and why")
    console.print(f"The planted taste, which the engine never sees: {planted}", highlight=False)
    found = recommender.recommend(user_id, 8)
    _show(console, found, recommender)
    about = found.tracks[0].about
    _head(console, f"4. What is like {about['title']} by {about['artist']}")
    _show(console, recommender.similar(found.tracks[0].track_id, 5), recommender)
    recommender.close()


def _clear(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise ArtefactError(f"{out} holds something else; give another folder with --out")
        shutil.rmtree(out)


def _sql(console: Console, store: Path) -> None:
    _head(console, "7. Any SQL on the tables: whose never-played tracks reach people's top 20")
    console.print(SQL, highlight=False)
    _table(console, *query(Store(store).current() / FILE, SQL))


def _evaluate(console: Console, inputs: Inputs, out: Path, progress: Progress) -> None:
    _head(console, "8. Is it any good? Held-out listens judge its lists and those of baselines")
    settings = _settings()
    catalogue = read_catalogue(inputs, settings, Problems())
    found = evaluate(
        catalogue.tracks,
        catalogue.listens,
        catalogue.tags,
        settings=settings,
        evaluation_settings=EvaluationSettings(
            protocols=("warm", "cold-track"), ks=(5, 10), splits=SplitSettings(n_splits=1)
        ),
        out=out / "evaluation",
        progress=progress,
    )
    console.print(recall_table(found.figures.filter(pl.col("model").is_in(JUDGED))))
    console.print("warm: played tracks; cold-track: tracks that nobody played, among themselves or among all.")
    console.print("Tastes were planted here, so this says that it works, not how well it does on real music.")


def _some_user(store: Path) -> str:
    """Pick the listener with the median number of plays."""
    sql = "SELECT user_id FROM users WHERE plays > 0 ORDER BY plays, user_id"
    _, rows = query(Store(store).current() / FILE, sql)
    return str(rows[len(rows) // 2][0])


@contextmanager
def _server(store: Path) -> Iterator[str]:
    """Run ``recsys serve`` in a process of its own; returns its address; its remarks are an error's text."""
    command = [sys.executable, "-m", "recsys", "serve", "--store", str(store), "--listen", "127.0.0.1:0"]
    with (
        TemporaryFile("w+", encoding="utf-8") as remarks,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=remarks, text=True) as process,
    ):
        try:
            line = process.stdout.readline() if process.stdout else ""
            if " on " not in line:
                process.wait(timeout=10)
                remarks.seek(0)
                raise ArtefactError(f"the server did not start: {remarks.read().strip()}")
            yield line.split(" on ")[1].split()[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)


def _call(console: Console, store: Path, user_id: str, progress: Progress) -> None:
    _head(console, f"6. The list of {user_id} from a server, over gRPC")
    with ExitStack() as stack:
        with progress.stage("serve") as stage:
            address = stack.enter_context(_server(store))
            stage.done(f"recsys serve listens on {address}")
        stub = recommender_pb2_grpc.RecommenderStub(stack.enter_context(grpc.insecure_channel(address)))  # type: ignore[no-untyped-call]  # generated
        answer = stub.Recommend(recommender_pb2.RecommendRequest(user_id=user_id, k=2), timeout=10)
        console.print(f"Recommend(user_id={user_id!r}, k=2) answers:", highlight=False)
        console.print(str(answer).rstrip(), highlight=False, markup=False)


def _upload(console: Console, store: Path, audio: Path, planted: set[str], n_users: int, progress: Progress) -> None:
    _head(console, "5. A new clip is uploaded: nobody has ever played it, its artist is unknown")
    with progress.stage("upload") as stage:
        added = add_track(store, audio, NewTrack())
        stage.done("heard, and in the lists at once")
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
    kept = [n for n in range(len(names)) if not rows or any(row[n] != "" for row in rows)]  # nothing in it: no column
    table = Table()
    for n in kept:
        table.add_column(names[n])
    for row in rows:
        table.add_row(*(str(row[n]) for n in kept))
    console.print(table, highlight=False, markup=False)


def _head(console: Console, text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]", highlight=False)


def _farewell(console: Console, out: Path, upload: Path) -> None:
    store = out / "store"
    _head(console, f"To look at (all of it simulated, in {out}):")
    console.print(
        f"{out / 'evaluation' / 'report.html'}   the evaluation with its plots\n"
        f"recsys spectrogram {upload} --out {out / 'upload.png'}   what the audio network sees\n"
        f"recsys recommend listener-0001 --store {store}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    _head(console, "Now with your own music:")
    console.print(
        "recsys scan ~/Music --out tracks.parquet\n"
        "recsys build --tracks tracks.parquet --listens listens.csv --store mystore   (the listens are optional)\n"
        "recsys similar TRACK_ID --store mystore\n"
        "recsys recommend USER_ID --store mystore\n"
        "recsys serve --store mystore --listen 127.0.0.1:50051",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _settings() -> RunSettings:
    """The defaults, less what costs most and shows nothing on a catalogue that everybody knows to be simulated.

    No augmented copies of a clip, no search for the settings of ALS, and few epochs where a network must be trained
    because no published weights are here.
    """
    audio = AudioSettings(head=HeadSettings(copies=()), train=TrainSettings(epochs=15))
    return RunSettings(audio=audio, hybrid=HybridSettings(choice=ALSChoice(enabled=False)))
