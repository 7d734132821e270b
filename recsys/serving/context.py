"""What stands around the handlers of every worker, made once before the fork: access, limits, counts, certificates.

    settings, bound sockets -> open_context -> ServerContext -> enter(worker) -> AccessControl, Meter

Here it is decided whether the server may start at all: without tokens, or without TLS, only on loopback.
"""

import logging
import socket
from collections.abc import Collection
from dataclasses import dataclass, field

from recsys.errors import ConfigError
from recsys.serving.access import ROLES, AccessControl
from recsys.serving.integrity import Findings
from recsys.serving.logs import CallLog
from recsys.serving.metrics import Board, Meter
from recsys.serving.prometheus import Scrapes
from recsys.serving.rate_limits import Rates, UploadSlots
from recsys.serving.settings import ServeSettings
from recsys.serving.sockets import is_loopback
from recsys.serving.tls import Certificates, read_certificates
from recsys.serving.tokens import Keyring
from recsys.util.pem import expiry_told

OPEN = "no tokens: anyone on this machine may call every method; --tokens FILE asks for one"
SEEN = "others can reach the figures at %s, where no token is asked for; --metrics 127.0.0.1:PORT keeps them here"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerContext:
    """Made in the parent; a worker calls ``enter`` once."""

    settings: ServeSettings
    certificates: Certificates | None = None
    keyring: Keyring | None = None
    rates: Rates | None = None
    uploads: UploadSlots | None = None
    board: Board | None = None
    scrapes: Scrapes | None = None
    findings: Findings = field(default_factory=Findings)

    @property
    def sockets(self) -> list[socket.socket]:
        """What the parent waits on, beside its workers."""
        return self.scrapes.sockets if self.scrapes else []

    def announce(self) -> None:
        """Say where figures are, and so where anybody may come in."""
        if self.keyring is None:
            _LOG.warning(OPEN)
        expiry = expiry_told(self.settings.tls_cert) if self.settings.tls_cert else ""
        if expiry:
            _LOG.warning(expiry)
        if self.scrapes and not self.scrapes.is_loopback:
            _LOG.warning(SEEN, self.scrapes.where)
        if self.scrapes:
            _LOG.info("figures for Prometheus: http://%s/metrics", self.scrapes.where)

    def answer(self, ready: Collection[object]) -> None:
        """Answer who asks for figures."""
        if self.scrapes:
            self.scrapes.answer(ready)

    def forget(self, worker: int) -> None:
        """Leave out of the figures what a worker that has ended said about itself."""
        if self.board:
            self.board.forget(worker)

    def enter(self, worker: int) -> tuple[AccessControl, Meter | None]:
        """Be this worker from here on."""
        if self.uploads:
            self.uploads.enter(worker)
        access = AccessControl(
            self.keyring,
            self.rates,
            self.uploads,
            self.settings.upload_s,
            CallLog(self.settings.log_calls),
            self.certificates,
            self.settings.max_message_mib << 20,
            self.settings.max_calls,
        )
        return access, self.board.meter(worker) if self.board else None

    def close(self) -> None:
        """Let go of the port for figures."""
        if self.scrapes:
            self.scrapes.close()


def open_context(
    settings: ServeSettings, n_workers: int, port_holder: socket.socket, metrics: socket.socket | None
) -> ServerContext:
    """Make what the settings ask for.

    Args:
        settings: what was asked for.
        n_workers: how many processes will serve.
        port_holder: the socket that is bound to the server's address.
        metrics: one that is bound to the address for figures, if they are wanted.

    Raises:
        ConfigError: a file is missing or damaged, or others could reach a server without tokens or TLS.
    """
    certificates = read_certificates(settings)
    keyring = Keyring(settings.tokens) if settings.tokens else None
    host = port_holder.getsockname()[0]
    if not is_loopback(host):
        if keyring is None:
            raise ConfigError(
                f"{host} is not loopback: others can reach it, so --tokens FILE is needed; "
                "make one with `recsys token add`"
            )
        if certificates is None:
            raise ConfigError(
                f"{host} is not loopback: tokens would be readable on the way; give --tls-cert and --tls-key"
            )
    board, scrapes = None, None
    if metrics is not None:
        from recsys.serving.prometheus import CONTENT_TYPE, exposition  # only now: it loads an HTTP server of its own

        board = shown = Board(n_workers, tuple(ROLES))
        scrapes = Scrapes(metrics, lambda: exposition(shown), CONTENT_TYPE)
    rates = Rates(settings.rate) if settings.rate else None
    return ServerContext(
        settings, certificates, keyring, rates, UploadSlots(settings.max_uploads, n_workers), board, scrapes
    )
