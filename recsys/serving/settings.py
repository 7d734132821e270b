"""What ``recsys serve`` can be told beyond store, address and processes; every default works on loopback.

Without a file of tokens the server starts only where nobody else can reach it; ``recsys.serving.context`` checks that.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from recsys.uploads.settings import UploadSettings
from recsys.util.settings import Settings


class ServeSettings(Settings):
    """Access, limits, and what is seen from outside."""

    backend: Literal["lmdb", "duckdb"] = "lmdb"  # where stored lists are looked up
    tokens: Path | None = None  # None lets everybody in, and only loopback may then be listened on
    tls_cert: Path | None = None  # PEM, the chain
    tls_key: Path | None = None  # PEM, without a password
    client_ca: Path | None = None  # PEM; with it every client must show a certificate of this authority
    rate: float | None = Field(default=None, gt=0)  # calls a second of one client over all workers; None is no limit
    max_calls: int = Field(default=1000, ge=1)  # running at once, of one worker
    max_uploads: int = Field(default=4, ge=1)  # at once, over all workers
    max_upload_mib: float = Field(default=200.0, gt=0)  # of one file
    max_upload_length_s: float = Field(default=4 * 3600.0, gt=0)  # of one recording
    upload_s: float = Field(default=300.0, gt=0)  # an upload holds its place so long at most
    max_message_mib: int = Field(default=4, ge=1, le=64)  # a chunk of an upload is good up to 1 MiB
    metrics: str | None = None  # HOST:PORT
    log: Literal["text", "json"] = "text"
    log_calls: bool = False  # a line for each call, not only for refusals and faults
    log_details: bool = False  # what faults say, which may name a user

    @property
    def uploads(self) -> UploadSettings:
        """The limits of uploads, those that cannot be told here as they are by default."""
        return UploadSettings(
            at_once=self.max_uploads, max_mb=self.max_upload_mib, max_length_s=self.max_upload_length_s
        )
