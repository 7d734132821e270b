"""The commands around the server: ``serve``, ``rollback``, and ``token`` to say who may call it."""

import os
from typing import Annotated

import typer

from recsys.cli import options
from recsys.cli.output import log, print_table

app = typer.Typer()
token_app = typer.Typer(help="Say who may call a server: tokens, kept as hashes in a file.", no_args_is_help=True)
app.add_typer(token_app, name="token")


@app.command()
def serve(
    store: options.Store,
    listen: Annotated[str, typer.Option("--listen", help="HOST:PORT; port 0 takes a free one.")] = options.AT,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes on the one port.")] = 1,
    backend: options.Backend = options.BackendName.lmdb,
    tokens: options.ServeTokens = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    client_ca: options.ClientCa = None,
    rate: options.Rate = None,
    max_calls: options.MaxCalls = 1000,
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
        max_calls=max_calls,
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


@app.command("restart-log")
def restart_log(store: options.Store) -> None:
    """Go on after live.lmdb was lost: new entries above the old numbers, what it held since the last build given up."""
    from recsys.eventlog.restart import restart_log as run

    log(f"the live log of {store} goes on above entry {run(store):,}; what was deleted before must be deleted again")


@app.command()
def rollback(store: options.Store, to: options.RollbackTo = None) -> None:
    """Let an earlier generation answer, or a named one; running servers notice within a second."""
    from recsys.live.rollback import rollback as run

    log(f"{run(store, to)} answers now")


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
    log(f"{token.name}, role {token.role.word}: keep it, it is shown only now")


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
    log(f"{name} is no longer let in")
