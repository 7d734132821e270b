"""The command line: parse, call, print; no arithmetic.

Results go to standard output, progress and remarks to standard error. Exit status: 0 done, 2 input, settings or
usage, 3 nothing by that id, 4 a store or a server that is missing, damaged or busy, 130 interrupted.
"""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli import call, options, serve, vectors
from recsys.cli.output import (
    console,
    log,
    log_build,
    log_problems,
    log_shortfall,
    print_added,
    print_facts,
    print_list,
    print_table,
)
from recsys.errors import ArtefactError, NotFoundError, RecsysError
from recsys.util.printable import shown
from recsys.util.progress import Bars

app = typer.Typer(
    help="Music recommendations from sound, lyrics, metadata and listening.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(serve.app)
app.add_typer(call.app, name="call")
app.add_typer(vectors.app, name="vectors")


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
    log_problems(problems.counts(), problems.examples())
    log(f"{len(frame):,} tracks -> {out}")


@app.command()
def build(
    tracks: options.Tracks,
    store: options.Store,
    listens: options.Listens = None,
    tags: options.Tags = None,
    audio_root: options.AudioRoot = None,
    config: options.Config = None,
    strict: Annotated[bool, typer.Option("--strict", help="Any problem in the input ends the build.")] = False,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train the audio network anew.")] = False,
    verbose: options.Verbose = False,
) -> None:
    """Learn from tracks and listens, and publish lists for every user and neighbours of every track."""
    from pipelines.build import Inputs
    from pipelines.build import build as run
    from recsys.config import load_settings

    inputs = Inputs(tracks, listens, tags, audio_root)
    summary = run(inputs, store, load_settings(config), Bars(verbose=verbose), strict, retrain)
    log_problems(summary.problems, summary.examples)
    log_build(summary.build, store)


@app.command()
def recommend(
    user_id: str,
    store: options.Store,
    k: options.K = 20,
    max_per_artist: options.MaxPerArtist = None,
    diversity: options.Diversity = None,
    as_json: options.Json = False,
) -> None:
    """Rank tracks for a user; one without plays gets popular tracks."""
    from recsys.recommender import Recommender

    found = Recommender.open(store).recommend(user_id, k, max_per_artist=max_per_artist, diversity=diversity)
    log_shortfall(found, user_id, k)
    print_list(found, f"for {user_id}", as_json)


@app.command()
def similar(
    track_id: str,
    store: options.Store,
    k: options.K = 20,
    space: Annotated[options.SpaceName, typer.Option("--space", help="In what way alike.")] = options.SpaceName.hybrid,
    as_json: options.Json = False,
) -> None:
    """Rank the tracks that are most like a track."""
    from recsys.recommender import Recommender

    found = Recommender.open(store).similar(track_id, k, space.value)
    print_list(found, f"like {track_id}, by {space.value}", as_json)


@app.command()
def add(
    audio: Path,
    store: options.Store,
    track_id: options.TrackId = None,
    title: options.Title = None,
    artist: options.Artist = None,
    album: options.Album = None,
    genre: options.Genre = None,
    year: options.Year = None,
    lyrics_file: options.LyricsFile = None,
    as_json: options.Json = False,
) -> None:
    """Put a new track into the store: it is in every list that it belongs in at once."""
    from recsys.catalogue.tables import read_text
    from recsys.live.add_track import NewTrack, add_track
    from recsys.recommender import Recommender

    lyrics = None if lyrics_file is None else read_text(lyrics_file)
    genres = None if genre is None else ";".join(genre)
    added = add_track(store, audio, NewTrack(track_id, title, artist, album, genres, year, lyrics))
    recommender = Recommender.open(store)
    near = recommender.similar(added.track_id, 5)
    audience = recommender.audience(added.track_id, 5)
    print_added(added, near, audience, as_json)


@app.command()
def sql(query: str, store: options.Store, out: options.SqlOut = None) -> None:
    """Run one SQL query on the published tables: it can change nothing, and read nothing else."""
    from recsys.store.duckdb_tables import FILE
    from recsys.store.generation import Store
    from recsys.store.sql import ask, check_result, write_result

    if out is not None:
        check_result(out)
    rows = ask(Store(store).current() / FILE, query)
    if out is None:
        print_table("", rows.columns, rows.rows())
    else:
        write_result(rows, out)
        log(f"{len(rows):,} rows -> {out}")


@app.command()
def evaluate(
    tracks: options.Tracks,
    out: Annotated[Path, typer.Option("--out", help="Where report.json and evaluation.duckdb go.")],
    listens: options.Listens = None,
    tags: options.Tags = None,
    audio_root: options.AudioRoot = None,
    store: Annotated[Path | None, typer.Option("--store", help="Keep the figures in this store too.")] = None,
    protocol: options.Protocols = None,
    k: Annotated[str, typer.Option("-k", help="List lengths, with commas.")] = "5,10,20,50",
    networks: options.Networks = None,
    max_tracks: options.MaxTracks = None,
    cold_by: options.ColdBy = "track",
    cuts: Annotated[int, typer.Option("--cuts", help="Cuts in time that warm, and cold-track by time, roll over.")] = 1,
    split: options.WarmSplit = "usual",
    live_days: options.LiveDays = None,
    made_up: options.MadeUp = "",
    ablations: options.Ablations = False,
    trials: options.PeerTrials = 10,
    time_budget: options.PeerBudget = None,
    config: options.Config = None,
    verbose: options.Verbose = False,
) -> None:
    """Judge recommendations on held-out listens, or sound vectors on artists that they have not met."""
    from eval.representation.table import representation_table
    from eval.results import recall_table
    from eval.settings import evaluation_settings
    from eval.tuning.tune_baselines import baseline_settings
    from pipelines.build import Inputs
    from pipelines.evaluate import evaluate_files
    from recsys.config import load_settings

    chosen = evaluation_settings(protocol, k, networks, max_tracks, cold_by, cuts, ablations, live_days, split, made_up)
    inputs, baselines = Inputs(tracks, listens, tags, audio_root), baseline_settings(chosen, trials, time_budget)
    found = evaluate_files(inputs, load_settings(config), chosen, out, store, Bars(verbose=verbose), baselines)
    if found.about["splits"]:
        console().print(recall_table(found.figures))
    if "networks" in found.about:
        console().print(representation_table(found.figures, found.about["networks"]))
    log(f"to look at: {out}/report.html; all figures: {out}/report.json and {out}/evaluation.duckdb")


@app.command()
def tune(
    tracks: options.Tracks,
    listens: options.GivenListens,
    out: options.TunedOut,
    tags: options.Tags = None,
    audio_root: options.AudioRoot = None,
    config: options.Config = None,
    trials: options.TuneTrials = 20,
    time_budget: options.TuneBudget = None,
    protocol: options.TuneProtocol = options.TuneProtocolName.both,
    cold_by: options.ColdBy = "track",
    seed: options.TuneSeed = 0,
    force: options.Force = False,
    verbose: options.Verbose = False,
) -> None:
    """Find settings that do better on held-out listens, and write them as a file; a killed run goes on."""
    from eval.tuning.tune_hybrid import tune_settings
    from pipelines.build import Inputs
    from pipelines.tune import tune_files
    from recsys.config import load_settings

    chosen = tune_settings(protocol.value, trials, time_budget, seed, cold_by)
    command, inputs = shlex.join(["recsys", *sys.argv[1:]]), Inputs(tracks, listens, tags, audio_root)
    found = tune_files(inputs, load_settings(config), chosen, out, force, command, Bars(verbose=verbose))
    print_table("on validation", ["", "base", "tuned"], found.rows())
    log(f"{found.told()[-1]}: {out}")
    log(f"next: recsys build --config {out}, with the tables and the store as ever")


@app.command()
def spectrogram(
    audio: Annotated[Path, typer.Argument(help="Any file that decodes.")],
    out: Annotated[Path, typer.Option("--out", help="The picture to write: .png or .svg.")],
    config: options.Config = None,
) -> None:
    """Draw what the audio network sees of a file."""
    from recsys.audio.spectrogram import draw_spectrogram
    from recsys.config import load_settings
    from recsys.util.figures import check_picture, save_picture

    check_picture(out)
    save_picture(draw_spectrogram(audio, load_settings(config).audio), out)
    log(f"{audio} -> {out}")


@app.command()
def status(store: options.Store) -> None:
    """Say what a store holds: the generation that answers, what happened since, and where one can go back to."""
    from recsys.eventlog.replay import happened_since, other_generations
    from recsys.recommender import Recommender
    from recsys.store.generation import Store

    recommender = Recommender.open(store)
    since = happened_since(Store(store), int(recommender.facts["last_live_number"]))
    happened = ", ".join(f"{count:,} {name}" for name, count in since.items())
    others = other_generations(Store(store)) or ["no other generation is kept"]
    print_facts(recommender.status() | {"since_then": happened, "rollback_to": others})


@app.command()
def weights(name: Annotated[options.WeightsName, typer.Argument(help="The published network.")]) -> None:
    """Fetch a published network's weights, check them and keep them in the user's cache directory."""
    from recsys.audio.networks.weights import fetch_musicnn

    fetchers = {options.WeightsName.musicnn: fetch_musicnn}
    print(fetchers[name](Bars()))


@app.command()
def demo(out: options.DemoOut = Path("demo-out"), verbose: options.Verbose = False) -> None:
    """Compose a small catalogue with simulated listeners and show everything on it."""
    from pipelines.demo import demo as run

    run(out, Bars(verbose=verbose))


# what only the build extra installs; the base install serves, queries and recommends
BUILD_EXTRA = (
    *("av", "faiss", "implicit", "lightfm", "matplotlib", "optuna", "safetensors", "sklearn", "soundfile", "soxr"),
    *("tomli_w", "torch", "torchaudio"),
)
EXIT = ((NotFoundError, 3), (ArtefactError, 4), (RecsysError, 2))
INTERRUPTED = 130


def main() -> None:
    """Run the command line; an error that was raised on purpose is one line and an exit status."""
    try:
        app(standalone_mode=True)
    except RecsysError as error:
        print(f"recsys: {shown(str(error))}", file=sys.stderr)
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
