"""``recsys call``: a running server asked by hand, and written to.

Every command is a function of a client and of what it asks for; ``calling`` makes the client, and gives the command the
options that say where the server is and how it is reached, which are those of ``_client``.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.cli import options
from recsys.cli.output import log, log_shortfall, print_added, print_facts, print_list, print_table
from recsys.errors import ArtefactError, ConfigError, NotFoundError, RecsysError, RefusedError
from recsys.types import RankedList, RankedTrack

if TYPE_CHECKING:
    from recsys.client import Client

app = typer.Typer(help="Call a running server by hand, with its answer on the screen.", no_args_is_help=True)

TOKEN = "RECSYS_TOKEN"  # in the environment, which other users cannot read as they can the command line
# What a refusal means to the caller, as an exit status; any other one is the server's affair.
REFUSALS: dict[str, type[RecsysError]] = {
    **dict.fromkeys(("INVALID_ARGUMENT", "ALREADY_EXISTS", "UNAUTHENTICATED", "PERMISSION_DENIED"), ConfigError),
    "FAILED_PRECONDITION": NotFoundError,
}


@contextmanager
def _client(
    at: options.At = options.AT,
    token_file: options.TokenFile = None,
    ca: options.Ca = None,
    cert: options.Cert = None,
    key: options.Key = None,
) -> "Iterator[Client]":
    """Connect to a server; what it refuses becomes the error that the same thing is without a server."""
    # gRPC's C core would write lines of its own about failed connections, unless it finds this when it is imported
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from recsys.client import Client

    token = os.environ.get(TOKEN) or None
    if token_file is not None:
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the token file {token_file} cannot be read: {error}") from error
    with Client(at, token=token, ca=ca, certificate=cert, key=key) as client:
        try:
            yield client
        except RefusedError as error:
            raise REFUSALS.get(error.status, ArtefactError)(f"the server at {at}: {error}") from error


def calling(command: Callable[..., None]) -> Callable[..., None]:
    """Make a function of a client into one of the options that make the client, beside its own."""
    own, ways = signature(command), signature(_client).parameters

    @wraps(command)
    def run(**given: Any) -> None:
        with _client(**{name: given.pop(name) for name in ways}) as client:
            command(client, **given)

    shown = [*list(own.parameters.values())[1:], *ways.values()]
    run.__signature__ = own.replace(parameters=shown)  # type: ignore[attr-defined]  # what typer makes options of
    run.__annotations__ = {one.name: one.annotation for one in shown}
    return run


@app.command()
@calling
def recommend(client: "Client", user_id: str, k: options.K = 20, as_json: options.Json = False) -> None:
    """Rank tracks for a user."""
    found = client.recommend(user_id, k)
    log_shortfall(found, user_id, k)
    print_list(found, f"for {user_id}", as_json)


@app.command()
@calling
def similar(
    client: "Client",
    track_id: str,
    k: options.K = 20,
    space: Annotated[options.SpaceName, typer.Option("--space", help="In what way alike.")] = options.SpaceName.hybrid,
    as_json: options.Json = False,
) -> None:
    """Rank the tracks that are most like a track."""
    print_list(client.similar(track_id, k, space.value), f"like {track_id}, by {space.value}", as_json)


@app.command()
@calling
def audience(client: "Client", track_id: str, k: options.K = 20, as_json: options.Json = False) -> None:
    """Name the users who would like a track most, each by their own standard."""
    found = client.audience(track_id, k)
    if as_json:
        for user, margin in found:
            print_facts({"user_id": user, "margin": margin}, as_json)
        return
    print_table(f"who would like {track_id}", ["user", "margin"], [(user, f"{margin:.3f}") for user, margin in found])


@app.command()
@calling
def track(client: "Client", track_id: str, as_json: options.Json = False) -> None:
    """Say what is known of a track."""
    print_facts(client.track(track_id), as_json)


@app.command()
@calling
def status(client: "Client", as_json: options.Json = False) -> None:
    """Say which generation answers, and how much is in it."""
    print_facts(client.status(), as_json)


@app.command()
@calling
def upload(
    client: "Client",
    audio: Path,
    track_id: options.TrackId = None,
    title: options.Title = None,
    artist: options.Artist = None,
    album: options.Album = None,
    genre: options.Genre = None,
    year: options.Year = None,
    lyrics_file: options.LyricsFile = None,
    as_json: options.Json = False,
) -> None:
    """Send a new track; what is not said of it is what the tags inside its file say."""
    from recsys.catalogue.tables import read_text

    lyrics = None if lyrics_file is None else read_text(lyrics_file)
    said = {"track_id": track_id, "title": title, "artist": artist, "album": album, "year": year, "lyrics": lyrics}
    genres = [name for names in genre or [] for name in names.split(";")]
    added = client.upload(audio, genres=genres, **said)
    near = [RankedTrack(track_id, score, rank, None, {}) for rank, (track_id, score) in enumerate(added.neighbours, 1)]
    print_added(added, RankedList(near, "neighbours", ""), (), as_json)


@app.command()
@calling
def listen(client: "Client", user_id: str, track_id: str) -> None:
    """Record that a user heard a track just now; said twice, it counts twice."""
    from recsys.client import Listen

    recorded = client.record([Listen(user_id, track_id)])
    for _, reason in recorded.refused:
        raise NotFoundError(f"not recorded: {reason}")
    log(f"recorded: {user_id} heard {track_id}")


@app.command()
@calling
def delete_track(client: "Client", track_id: str) -> None:
    """Take a track out of every list and every later build."""
    client.delete_track(track_id)
    log(f"{track_id} is gone")


@app.command()
@calling
def delete_user(client: "Client", user_id: str) -> None:
    """Forget a user and all that was recorded of them."""
    client.delete_user(user_id)
    log(f"{user_id} is forgotten")
