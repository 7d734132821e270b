"""The commands around the server: ``serve``, ``token`` to say who may call it, ``call`` to call one by hand."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys import options
from recsys.errors import ArtefactError, ConfigError, NotFoundError, RecsysError, RefusedError
from recsys.screen import print_added, print_facts, print_list, print_table, say, say_shortfall
from recsys.types import RankedList, RankedTrack

if TYPE_CHECKING:
    from recsys.client import Client

app = typer.Typer()
token_app = typer.Typer(help="Say who may call a server: tokens, kept as hashes in a file.", no_args_is_help=True)
app.add_typer(token_app, name="token")
call_app = typer.Typer(help="Call a running server by hand, with its answer on the screen.", no_args_is_help=True)
app.add_typer(call_app, name="call")

AT = "127.0.0.1:50051"  # where `recsys serve` listens by default
TOKEN = "RECSYS_TOKEN"  # in the environment, which other users cannot read as they can the command line
# What a refusal is to whoever called, as an exit status; any other one is the server's affair.
REFUSALS: dict[str, type[RecsysError]] = {
    **dict.fromkeys(("INVALID_ARGUMENT", "ALREADY_EXISTS", "UNAUTHENTICATED", "PERMISSION_DENIED"), ConfigError),
    "FAILED_PRECONDITION": NotFoundError,
}


@app.command()
def serve(
    store: options.Store,
    listen: Annotated[str, typer.Option("--listen", help="HOST:PORT; port 0 takes a free one.")] = AT,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes on the one port.")] = 1,
    backend: options.Backend = options.BackendName.lmdb,
    tokens: options.ServeTokens = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    client_ca: options.ClientCa = None,
    rate: options.Rate = None,
    max_uploads: options.MaxUploads = 4,
    max_upload_size: options.MaxUploadSize = 200.0,
    max_upload_length: options.MaxUploadLength = 4 * 3600.0,
    upload_seconds: options.UploadSeconds = 300.0,
    max_message: options.MaxMessage = 4,
    metrics: options.Metrics = None,
    log: options.Log = options.LogStyle.text,
    log_calls: options.LogCalls = False,
    log_details: options.LogDetails = False,
) -> None:
    """Answer over gRPC until SIGTERM; without tokens only to this machine."""
    # gRPC's C core writes a line of its own for each failed handshake, as many as a stranger likes and no JSON, unless
    # it finds this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from recsys.serving.settings import ServeSettings
    from recsys.serving.workers import serve as run

    settings = ServeSettings(
        backend=backend.value,
        tokens=tokens,
        tls_cert=tls_cert,
        tls_key=tls_key,
        client_ca=client_ca,
        rate=rate,
        max_uploads=max_uploads,
        max_upload_mib=max_upload_size,
        max_upload_length_s=max_upload_length,
        upload_s=upload_seconds,
        max_message_mib=max_message,
        metrics=metrics,
        log=log.value,
        log_calls=log_calls,
        log_details=log_details,
    )
    raise typer.Exit(run(store, listen, workers, settings))


@app.command()
def rollback(store: options.Store, to: options.RollbackTo = None) -> None:
    """Let an earlier generation answer, or a named one; running servers notice within a second."""
    from recsys.store.rollback import rollback as run

    say(f"{run(store, to)} answers now")


@token_app.command("add")
def token_add(
    tokens: options.Tokens,
    role: Annotated[options.RoleName, typer.Option("--role", help="What it allows; each includes those before it.")],
    name: Annotated[str | None, typer.Option("--name", help="Whose it is; made up by default.")] = None,
) -> None:
    """Make a token and print it, this once: only its hash is kept."""
    from recsys.serving.tokens import Role, add_token

    secret, token = add_token(tokens, Role[role.name.upper()], name)
    print(secret)
    say(f"{token.name}, role {token.role.word}: keep it, it is shown only now")


@token_app.command("list")
def token_list(tokens: options.Tokens) -> None:
    """Say which tokens there are."""
    from recsys.serving.tokens import read_tokens

    rows = [(token.name, token.role.word, token.made_at) for token in read_tokens(tokens)]
    print_table("", ["name", "role", "made at"], rows)


@token_app.command("remove")
def token_remove(
    tokens: options.Tokens, name: Annotated[str, typer.Argument(help="As `recsys token list` says it.")]
) -> None:
    """Take a token away; running servers refuse it within a second."""
    from recsys.serving.tokens import remove_token

    remove_token(tokens, name)
    say(f"{name} is no longer let in")


# ---- calling ---------------------------------------------------------------------------------------------------------


@call_app.command("recommend")
def call_recommend(
    user_id: str,
    k: options.K = 20,
    at: options.At = AT,
    token_file: options.TokenFile = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Rank tracks for a user."""
    with _client(at, token_file, ca) as client:
        found = client.recommend(user_id, k)
    say_shortfall(found, user_id, k)
    print_list(found, f"for {user_id}", as_json)


@call_app.command("similar")
def call_similar(
    track_id: str,
    k: options.K = 20,
    space: Annotated[options.SpaceName, typer.Option("--space", help="In what way alike.")] = options.SpaceName.hybrid,
    at: options.At = AT,
    token_file: options.TokenFile = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Rank the tracks that are most like a track."""
    with _client(at, token_file, ca) as client:
        print_list(client.similar(track_id, k, space.value), f"like {track_id}, by {space.value}", as_json)


@call_app.command("audience")
def call_audience(
    track_id: str,
    k: options.K = 20,
    at: options.At = AT,
    token_file: options.TokenFile = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Name the users who would like a track most, each by their own standard."""
    with _client(at, token_file, ca) as client:
        found = client.audience(track_id, k)
    if as_json:
        for user, margin in found:
            print_facts({"user_id": user, "margin": margin}, as_json)
        return
    print_table(f"who would like {track_id}", ["user", "margin"], [(user, f"{margin:.3f}") for user, margin in found])


@call_app.command("track")
def call_track(
    track_id: str,
    at: options.At = AT,
    token_file: options.TokenFile = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Say what is known of a track."""
    with _client(at, token_file, ca) as client:
        print_facts(client.track(track_id), as_json)


@call_app.command("status")
def call_status(
    at: options.At = AT,
    token_file: options.TokenFile = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Say which generation answers, and how much is in it."""
    with _client(at, token_file, ca) as client:
        print_facts(client.status(), as_json)


@call_app.command("upload")
def call_upload(
    audio: Path,
    at: options.At = AT,
    token_file: options.TokenFile = None,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Send a new track, which is what the tags inside its file say."""
    with _client(at, token_file, ca) as client:
        added = client.upload(audio)
    near = [RankedTrack(track_id, score, rank, None, {}) for rank, (track_id, score) in enumerate(added.neighbours, 1)]
    print_added(added, RankedList(near, "neighbours", ""), (), as_json)


@call_app.command("listen")
def call_listen(
    user_id: str,
    track_id: str,
    at: options.At = AT,
    token_file: options.TokenFile = None,
    ca: options.Ca = None,
) -> None:
    """Record that a user heard a track just now; said twice, it counts twice."""
    from recsys.client import Listen

    with _client(at, token_file, ca) as client:
        recorded = client.record([Listen(user_id, track_id)])
    for _, reason in recorded.refused:
        raise NotFoundError(f"not recorded: {reason}")
    say(f"recorded: {user_id} heard {track_id}")


@call_app.command("delete-track")
def call_delete_track(
    track_id: str,
    at: options.At = AT,
    token_file: options.TokenFile = None,
    ca: options.Ca = None,
) -> None:
    """Take a track out of every list and every later build."""
    with _client(at, token_file, ca) as client:
        client.delete_track(track_id)
    say(f"{track_id} is gone")


@call_app.command("delete-user")
def call_delete_user(
    user_id: str,
    at: options.At = AT,
    token_file: options.TokenFile = None,
    ca: options.Ca = None,
) -> None:
    """Forget a user and all that was recorded of them."""
    with _client(at, token_file, ca) as client:
        client.delete_user(user_id)
    say(f"{user_id} is forgotten")


@contextmanager
def _client(at: str, token_file: Path | None, ca: Path | None) -> "Iterator[Client]":
    """Connect to a server; what it refuses becomes the error that the same thing is without a server."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # as in ``serve``
    from recsys.client import Client

    token = os.environ.get(TOKEN) or None
    if token_file is not None:
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the token file {token_file} cannot be read: {error}") from error
    with Client(at, token=token, ca=ca) as client:
        try:
            yield client
        except RefusedError as error:
            raise REFUSALS.get(error.status, ArtefactError)(f"the server at {at}: {error}") from error
