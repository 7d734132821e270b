"""What the command line takes, option by option: names, kinds, limits and help, for ``recsys.cli.main``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class SpaceName(StrEnum):
    """Where tracks may be alike, or follow one another."""

    sound = "sound"
    content = "content"
    taste = "taste"
    hybrid = "hybrid"
    next = "next"


class TuneProtocolName(StrEnum):
    """What settings are tuned on."""

    warm = "warm"
    cold_track = "cold-track"
    both = "both"


class WeightsName(StrEnum):
    """Published networks that can be fetched."""

    musicnn = "musicnn"


class RoleName(StrEnum):
    """What a token allows."""

    read = "read"
    write = "write"
    admin = "admin"


class LogStyle(StrEnum):
    """How the server's lines are written."""

    text = "text"
    json = "json"


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
TrackId = Annotated[str | None, typer.Option("--track-id", help="Made from the audio by default.")]
Title = Annotated[str | None, typer.Option("--title", help="By default what the file's tags say, as with the rest.")]
Artist = Annotated[str | None, typer.Option("--artist")]
Album = Annotated[str | None, typer.Option("--album")]
Genre = Annotated[list[str] | None, typer.Option("--genre", help="Once for each, or several with ;")]
Year = Annotated[int | None, typer.Option("--year", min=1000, max=2999)]
LyricsFile = Annotated[Path | None, typer.Option("--lyrics-file", help="A text file.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings, a TOML file.")]

Protocols = Annotated[
    list[str] | None,
    typer.Option(
        "--protocol", help="warm, cold-track, cold-user, live, representation, with commas; the first three by default."
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
WarmSplit = Annotated[
    str,
    typer.Option(
        "--split", help="What warm holds out: usual (by time, or at random), each user's last, or last-plays."
    ),
]
MadeUp = Annotated[
    str, typer.Option("--made-up", help="Again with so many made-up tracks, never played, a new one: 1,3,10, say.")
]
LiveDays = Annotated[
    float | None,
    typer.Option("--live-days", help="Live plays so many last days one by one; by default the last fifth of events."),
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

Verbose = Annotated[bool, typer.Option("--verbose", help="A line for every part of every stage.")]

DemoOut = Annotated[Path, typer.Option("--out", help="Where the simulated catalogue and its store go.")]

Tokens = Annotated[Path, typer.Option("--tokens", help="The file of tokens' hashes.")]
ServeTokens = Annotated[
    Path | None, typer.Option("--tokens", help="Ask for a token of this file; `recsys token add` makes one.")
]
TlsCert = Annotated[Path | None, typer.Option("--tls-cert", help="The certificate, a PEM file with its chain.")]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="Its key, a PEM file without a password.")]
ClientCa = Annotated[
    Path | None, typer.Option("--client-ca", help="Let in only clients with a certificate of this authority (PEM).")
]
Rate = Annotated[
    float | None, typer.Option("--rate", help="Calls a second that one token, or one address, may make.", min=0.001)
]
MaxCalls = Annotated[int, typer.Option("--max-calls", help="Calls running at once, in each process.", min=1)]
MaxUploadSize = Annotated[float, typer.Option("--max-upload-size", help="MiB of one uploaded file.", min=0.001)]
MaxUploadLength = Annotated[float, typer.Option("--max-upload-length", help="Seconds of one recording.", min=1)]
MaxUploads = Annotated[int, typer.Option("--max-uploads", help="Uploads at once, over all processes.", min=1)]
UploadSeconds = Annotated[float, typer.Option("--upload-seconds", help="The longest that an upload may take.", min=1)]
MaxMessage = Annotated[int, typer.Option("--max-message", help="MiB of the largest message taken in.", min=1, max=64)]
Metrics = Annotated[
    str | None, typer.Option("--metrics", help="HOST:PORT for Prometheus; no token is asked for there.")
]
Log = Annotated[LogStyle, typer.Option("--log", help="How lines on standard error are written.")]
LogCalls = Annotated[bool, typer.Option("--log-calls", help="A line for every call, not only refusals and faults.")]
LogDetails = Annotated[bool, typer.Option("--log-details", help="Tell what faults say, which may name a user.")]


class BackendName(StrEnum):
    """Where stored lists are looked up."""

    lmdb = "lmdb"
    duckdb = "duckdb"


Backend = Annotated[
    BackendName,
    typer.Option("--backend", help="Where stored lists are looked up; duckdb is slower and needs no LMDB file."),
]
RollbackTo = Annotated[
    str | None, typer.Option("--to", help="The generation's id; by default that before the current one.")
]

AT = "127.0.0.1:50051"  # where `recsys serve` listens by default
At = Annotated[str, typer.Option("--at", help="HOST:PORT of the server.")]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", help="A file that holds the token; else RECSYS_TOKEN, if it is set.")
]
Ca = Annotated[
    Path | None, typer.Option("--ca", help="The authority that signed the server's certificate (PEM); with it, TLS.")
]
Cert = Annotated[
    Path | None, typer.Option("--cert", help="Your own certificate (PEM), if the server asks for one; with --key.")
]
Key = Annotated[Path | None, typer.Option("--key", help="Its key, a PEM file without a password.")]

VectorsOut = Annotated[Path, typer.Option("--out", help="The Parquet file to write.")]
NetworkOut = Annotated[
    Path | None, typer.Option("--network", help="A folder for the store's network, which another store can go on with.")
]
NetworkIn = Annotated[
    Path | None, typer.Option("--network", help="A network that an export wrote, for a store that has none yet.")
]

SqlOut = Annotated[
    Path | None, typer.Option("--out", help="Write the result to this .parquet, .csv or .json file instead.")
]
