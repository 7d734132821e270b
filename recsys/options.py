"""What the command line takes, option by option: names, kinds, limits and help, for ``recsys.cli``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class SpaceName(StrEnum):
    """Where tracks may be alike."""

    sound = "sound"
    content = "content"
    taste = "taste"
    hybrid = "hybrid"


class TuneProtocolName(StrEnum):
    """What settings are tuned on."""

    warm = "warm"
    cold_track = "cold-track"
    both = "both"


class WeightsName(StrEnum):
    """Published networks that can be fetched."""

    musicnn = "musicnn"


Store = Annotated[Path, typer.Option("--store", help="The store's folder.")]
K = Annotated[int, typer.Option("-k", help="Length of the list, 1 to 200.")]
MaxPerArtist = Annotated[int | None, typer.Option(min=1, help="At most so many tracks of one artist.")]
Diversity = Annotated[
    float | None, typer.Option(min=0, max=1, help="How much unlikeness counts against the score: 0 to 1.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Tracks = Annotated[Path, typer.Option("--tracks", help="The tracks: CSV, TSV, Parquet or JSON lines.")]
Listens = Annotated[Path | None, typer.Option("--listens", help="Who listened to what.")]
Tags = Annotated[Path | None, typer.Option("--tags", help="Tags: track_id, tag[, weight].")]
AudioRoot = Annotated[
    Path | None, typer.Option("--audio-root", help="What audio paths are relative to; the table's folder by default.")
]
Config = Annotated[Path | None, typer.Option("--config", help="Settings, a TOML file.")]

Protocols = Annotated[
    list[str] | None,
    typer.Option(
        "--protocol", help="warm, cold-track, cold-user, representation, with commas; the first three by default."
    ),
]
Networks = Annotated[
    str | None,
    typer.Option(
        "--networks", help="What representation compares: musicnn-head, conv1d, mfcc, ... with commas; all by default."
    ),
]
MaxTracks = Annotated[
    int | None, typer.Option("--max-tracks", help="The most tracks that representation judges; 2000 by default.")
]
ColdBy = Annotated[
    str,
    typer.Option("--cold-by", help="Cold-track takes out a track, a whole artist, or (time) what is new after a cut."),
]
Ablations = Annotated[
    bool, typer.Option("--ablations", help="Fit again without sound, lyrics, tags, artist and year, each in turn.")
]
PeerTrials = Annotated[
    int, typer.Option("--trials", help="Settings tried of each other model; 0 judges ours alone.", min=0)
]
PeerBudget = Annotated[
    float | None, typer.Option("--time-budget", help="Minutes that the other models may take on a split.", min=0.1)
]

GivenListens = Annotated[Path, typer.Option("--listens", help="Who listened to what, without what is to test later.")]
TunedOut = Annotated[Path, typer.Option("--out", help="The settings file to write, for recsys build --config.")]
TuneTrials = Annotated[
    int, typer.Option("--trials", help="Settings to try, those of earlier runs and the base's counted.", min=1)
]
TuneBudget = Annotated[
    float | None,
    typer.Option("--time-budget", help="Minutes after which no trial begins.", min=0.1),
]
TuneProtocol = Annotated[TuneProtocolName, typer.Option("--protocol", help="What is held out to judge on.")]
TuneSeed = Annotated[int, typer.Option("--seed", help="Of the parting of the listens and of the search.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the settings file if it is there.")]

DemoOut = Annotated[Path, typer.Option("--out", help="Where the simulated catalogue and its store go.")]
