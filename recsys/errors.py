"""Every error raised on purpose.

    RecsysError
    ├── DataError      (ValueError)     an input has the wrong shape, type or content
    │   └── TakenError                  an id was given to a new track, but belongs to another
    ├── ConfigError    (ValueError)     a setting is unknown or out of range
    │   └── MissingExtraError           what a setting asks for is not installed
    ├── NotFoundError  (LookupError)    an id is not in the catalogue, or a space has no vectors
    │   └── NoSpaceError                the space exists by name, but this catalogue has no data for it
    ├── ArtefactError  (RuntimeError)   a store, generation or model file is missing, damaged or busy
    │   ├── ChangedError                others have changed the DuckDB file, or hold it
    │   ├── DamagedError                bytes are not those that were written
    │   ├── FullDiskError               there is no room left to write to
    │   ├── LogLostError                the live log lacks entries that a generation was built with
    │   └── NewerError                  a newer version of this program wrote it
    ├── LimitError     (RuntimeError)   too large, too many at once, or too slow
    └── RefusedError                    a server did not do what it was asked

Each message is one sentence: what was found, what was expected, what to do.
``recsys.cli.main`` and ``recsys.serving`` alone catch them, and map the class to an exit code or a gRPC status.
"""


class RecsysError(Exception):
    """The root: everything this package raises on purpose."""


class DataError(RecsysError, ValueError):
    """An input has the wrong shape, type or content."""


class TakenError(DataError):
    """An id was given to a new track, but belongs to another."""


class ConfigError(RecsysError, ValueError):
    """A setting is unknown or out of range."""


class MissingExtraError(ConfigError):
    """What a setting asks for is not installed."""


class NotFoundError(RecsysError, LookupError):
    """An id is not in the catalogue."""


class NoSpaceError(NotFoundError):
    """This catalogue lacks the space asked for, or the track has no vector in it."""


class ArtefactError(RecsysError, RuntimeError):
    """A store, generation or model file is missing, damaged or busy."""


class ChangedError(ArtefactError):
    """A client has opened the DuckDB file to write: it holds it, or has changed it."""


class DamagedError(ArtefactError):
    """Bytes of a file are not those that were written: their checksum is another one."""


class FullDiskError(ArtefactError):
    """There is no room left where the store is written."""


class LogLostError(ArtefactError):
    """The live log lacks what a generation was built with (lost, emptied, an older copy), or is not in its place."""


class NewerError(ArtefactError):
    """A newer version of this program wrote a file, in a format that this one does not know."""


class LimitError(RecsysError, RuntimeError):
    """Something is larger, slower or more at once than this server takes."""


class RefusedError(RecsysError):
    """A server did not do what it was asked; ``status`` is the name of the gRPC status."""

    def __init__(self, sentence: str, status: str) -> None:
        """Keep the status beside the sentence."""
        super().__init__(sentence)
        self.status = status
