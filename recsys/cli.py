"""The command line: parse, call, print; no arithmetic.

Results go to standard output, progress and remarks to standard error. Exit status: 0 done, 2 input, settings or
usage, 3 nothing by that id, 4 a store that is missing, damaged or busy, 130 interrupted.
"""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from recsys.errors import ArtefactError, NotFoundError, RecsysError
from recsys.progress import Bars
from recsys.screen import console, print_list, print_table, say, say_build, say_problems

app = typer.Typer(
    help="Music recommendations from sound, lyrics, metadata and listening.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class SpaceName(StrEnum):
    """Where tracks may be alike."""

    sound = "sound"
    content = "content"
    taste = "taste"
    hybrid = "hybrid"


StoreOption = Annotated[Path, typer.Option("--store", help="The store's folder.")]
KOption = Annotated[int, typer.Option("-k", help="Length of the list, 1 to 200.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
TracksOption = Annotated[Path, typer.Option("--tracks", help="The tracks: CSV, TSV, Parquet or JSON lines.")]
ListensOption = Annotated[Path | None, typer.Option("--listens", help="Who listened to what.")]
TagsOption = Annotated[Path | None, typer.Option("--tags", help="Tags: track_id, tag[, weight].")]
AudioRootOption = Annotated[
    Path | None, typer.Option("--audio-root", help="What audio paths are relative to; the table's folder by default.")
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings, a TOML file.")]


@app.command()
def scan(
    folder: Annotated[Path, typer.Argument(help="A folder of audio files.")],
    out: Annotated[Path, typer.Option("--out", help="The table to write: .parquet, .csv, .tsv or .jsonl.")],
) -> None:
    """Make a tracks table from a folder of audio, from the tags inside the files."""
    from recsys.catalogue.problems import Problems
    from recsys.catalogue.scan import scan as scan_folder
    from recsys.catalogue.scan import write_table

    problems = Problems()
    frame = scan_folder(folder, problems, Bars())
    write_table(frame, out)
    say_problems(problems.counts(), problems.frame().select("kind", "value", "reason").head(5).rows())
    say(f"{len(frame):,} tracks -> {out}")


@app.command()
def build(
    tracks: TracksOption,
    store: StoreOption,
    listens: ListensOption = None,
    tags: TagsOption = None,
    audio_root: AudioRootOption = None,
    config: ConfigOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Any problem in the input ends the build.")] = False,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train the audio network anew.")] = False,
) -> None:
    """Learn from tracks and listens, and publish lists for every user and neighbours of every track."""
    from pipelines.build import Inputs
    from pipelines.build import build as run
    from recsys.config import load_settings

    inputs = Inputs(tracks, listens, tags, audio_root)
    summary = run(inputs, store, load_settings(config), Bars(), strict, retrain)
    say_problems(summary.problems, summary.examples)
    say_build(summary.build, store)


@app.command()
def recommend(
    user_id: str,
    store: StoreOption,
    k: KOption = 20,
    max_per_artist: Annotated[int | None, typer.Option(min=1, help="At most so many tracks of one artist.")] = None,
    diversity: Annotated[
        float | None, typer.Option(min=0, max=1, help="How much unlikeness counts against the score: 0 to 1.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Rank tracks for a user; one without plays gets popular tracks."""
    from recsys.recommender import Recommender

    found = Recommender.open(store).recommend(user_id, k, max_per_artist=max_per_artist, diversity=diversity)
    if found.source == "popular":
        say(f"nothing is known of the taste of {user_id!r}: popular tracks")
    if len(found.tracks) < k:
        say(f"{len(found.tracks)} tracks of {k}: the catalogue has no more that may stand in this list")
    print_list(found, f"for {user_id}", as_json)


@app.command()
def similar(
    track_id: str,
    store: StoreOption,
    k: KOption = 20,
    space: Annotated[SpaceName, typer.Option("--space", help="In what way alike.")] = SpaceName.hybrid,
    as_json: JsonOption = False,
) -> None:
    """Rank the tracks that are most like a track."""
    from recsys.recommender import Recommender

    found = Recommender.open(store).similar(track_id, k, space.value)
    print_list(found, f"like {track_id}, by {space.value}", as_json)


@app.command()
def add(
    audio: Path,
    store: StoreOption,
    track_id: Annotated[str | None, typer.Option(help="Made from the audio by default.")] = None,
    title: Annotated[str | None, typer.Option(help="By default what the file's tags say, as with the rest.")] = None,
    artist: Annotated[str | None, typer.Option()] = None,
    album: Annotated[str | None, typer.Option()] = None,
    genre: Annotated[str | None, typer.Option(help="Several with ;")] = None,
    year: Annotated[int | None, typer.Option(min=1000, max=2999)] = None,
    lyrics_file: Annotated[Path | None, typer.Option(help="A text file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a new track into the store: it is in every list that it belongs in at once."""
    from recsys.catalogue.tables import read_text
    from recsys.recommender import Recommender
    from recsys.uploads import NewTrack, add_track

    lyrics = None if lyrics_file is None else read_text(lyrics_file)
    added = add_track(store, audio, NewTrack(track_id, title, artist, album, genre, year, lyrics))
    recommender = Recommender.open(store)
    near = recommender.similar(added.track_id, 5)
    audience = recommender.audience(added.track_id, 5)
    if as_json:
        print(json.dumps({
            "track_id": added.track_id, "known": added.known, "notes": list(added.notes),
            "similar": [track.track_id for track in near.tracks],
            "audience": [{"user_id": user, "margin": margin} for user, margin in audience],
        }, ensure_ascii=False))  # fmt: skip
        return
    for note in added.notes:
        say(f"note: {note}")
    print(f"{added.track_id} {'was here already' if added.known else 'added'}")
    print_list(near, f"like {added.track_id}", False)
    if audience:
        print("who would like it: " + ", ".join(user for user, _ in audience))


@app.command()
def sql(query: str, store: StoreOption) -> None:
    """Run one SQL query on the published tables, read-only."""
    from recsys.store.generation import Store
    from recsys.store.tables import FILE
    from recsys.store.tables import query as run

    names, rows = run(Store(store).current() / FILE, query)
    print_table("", names, rows)


@app.command()
def serve(
    store: StoreOption,
    listen: Annotated[str, typer.Option("--listen", help="HOST:PORT; port 0 takes a free one.")] = "127.0.0.1:50051",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes on the one port.")] = 1,
) -> None:
    """Answer over gRPC until SIGTERM."""
    from recsys.serving.workers import serve as run

    raise typer.Exit(run(store, listen, workers))


@app.command()
def evaluate(
    tracks: TracksOption,
    out: Annotated[Path, typer.Option("--out", help="Where report.json and evaluation.duckdb go.")],
    listens: ListensOption = None,
    tags: TagsOption = None,
    audio_root: AudioRootOption = None,
    store: Annotated[Path | None, typer.Option("--store", help="Keep the figures in this store too.")] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol", help="warm, cold-track, cold-user, representation, with commas; the first three by default."
        ),
    ] = None,
    k: Annotated[str, typer.Option("-k", help="List lengths, with commas.")] = "5,10,20,50",
    networks: Annotated[
        str | None,
        typer.Option(
            "--networks",
            help="What representation compares: musicnn-head, conv1d, mfcc, ... with commas; all by default.",
        ),
    ] = None,
    max_tracks: Annotated[
        int | None, typer.Option("--max-tracks", help="The most tracks that representation judges; 2000 by default.")
    ] = None,
    cold_by: Annotated[
        str, typer.Option("--cold-by", help="Cold-track takes out a track or a whole artist.")
    ] = "track",
    cuts: Annotated[int, typer.Option("--cuts", help="Cuts in time that warm rolls over.")] = 1,
    trials: Annotated[
        int, typer.Option("--trials", help="Settings tried of each other model; 0 judges ours alone.", min=0)
    ] = 10,
    time_budget: Annotated[
        float | None, typer.Option("--time-budget", help="Minutes that the other models may take on a split.", min=0.1)
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Judge recommendations on held-out listens, or sound vectors on artists that they have not met."""
    from eval.representation.table import representation_table
    from eval.results import recall_table
    from eval.settings import evaluation_settings
    from eval.tuning import peer_settings
    from pipelines.build import Inputs
    from pipelines.evaluate import evaluate_files
    from recsys.config import load_settings

    inputs = Inputs(tracks, listens, tags, audio_root)
    chosen = evaluation_settings(protocol, k, networks, max_tracks, cold_by, cuts)
    others = peer_settings(chosen, trials, time_budget)
    found = evaluate_files(inputs, load_settings(config), chosen, out, store, Bars(), others)
    if found.about["splits"]:
        console().print(recall_table(found.figures))
    if "networks" in found.about:
        console().print(representation_table(found.figures, found.about["networks"]))
    say(f"to look at: {out}/report.html; all figures: {out}/report.json and {out}/evaluation.duckdb")


@app.command()
def spectrogram(
    audio: Annotated[Path, typer.Argument(help="Any file that decodes.")],
    out: Annotated[Path, typer.Option("--out", help="The picture to write: .png or .svg.")],
    config: ConfigOption = None,
) -> None:
    """Draw what the audio network sees of a file."""
    from recsys.audio.picture import draw_spectrogram
    from recsys.config import load_settings
    from recsys.drawing import check_picture, save_picture

    check_picture(out)
    save_picture(draw_spectrogram(audio, load_settings(config).audio), out)
    say(f"{audio} -> {out}")


@app.command()
def status(store: StoreOption) -> None:
    """Say what a store holds."""
    from recsys.recommender import Recommender

    facts = Recommender.open(store).status()
    for name, value in facts.items():
        print(f"{name:<14}{', '.join(value) if isinstance(value, list) else value}")


class WeightsName(StrEnum):
    """Published networks that can be fetched."""

    musicnn = "musicnn"


@app.command()
def weights(name: Annotated[WeightsName, typer.Argument(help="The published network.")]) -> None:
    """Fetch a published network's weights, check them and keep them in the user's cache directory."""
    from recsys.audio.weights import fetch_musicnn

    fetchers = {WeightsName.musicnn: fetch_musicnn}
    print(fetchers[name](Bars()))


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Where the simulated catalogue and its store go.")] = Path(
        "demo-out"
    ),
) -> None:
    """Compose a small catalogue with simulated listeners and show everything on it."""
    from pipelines.demo import demo as run

    run(out, Bars())


# what only the build extra installs; the base install serves, queries and recommends
BUILD_EXTRA = frozenset(
    (
        *("av", "faiss", "implicit", "lightfm", "matplotlib", "safetensors", "sklearn", "soundfile", "soxr"),
        *("threadpoolctl", "torch", "torchaudio"),
    )
)
EXIT = ((NotFoundError, 3), (ArtefactError, 4), (RecsysError, 2))
INTERRUPTED = 130


def main() -> None:
    """Run the command line; an error that was raised on purpose is one line and an exit status."""
    try:
        app(standalone_mode=True)
    except RecsysError as error:
        print(f"recsys: {error}", file=sys.stderr)
        sys.exit(next(status for kind, status in EXIT if isinstance(error, kind)))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in BUILD_EXTRA:
            raise
        print(f"recsys: this command needs {error.name}: pip install 'recsys[build]'", file=sys.stderr)
        sys.exit(4)
    except UnicodeEncodeError as error:
        print(f"recsys: {error.object!a} is not UTF-8 text; give it in UTF-8", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what the parser makes of Ctrl-C
            print("recsys: interrupted; run the same command again to go on", file=sys.stderr)
        raise
