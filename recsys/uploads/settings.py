"""What an upload to the server may cost, apart from the code that needs it."""

from pydantic import Field

from recsys.util.settings import Settings


class UploadSettings(Settings):
    """Limits of one upload; ``recsys serve`` sets those that it has options for."""

    max_mb: float = Field(default=200.0, gt=0)  # of 2^20 bytes, of one file
    max_length_s: float = Field(default=4 * 3600.0, gt=0)  # of one recording; the shortest is [audio.decode] min_s
    at_once: int = Field(default=4, ge=1)  # that are embedded, on as many cores
    idle_s: float = Field(default=30.0, gt=0)  # after which a stream that brings nothing is given up
    time_limit_s: float = Field(default=30.0, gt=0)  # to decode one
    memory_mb: int = Field(default=1024, ge=64)  # of a decoding process beyond what it has at its start
    n_neighbours: int = Field(default=10, ge=1, le=200)  # that the answer names

    @property
    def max_bytes(self) -> int:
        """The limit of a file's size."""
        return round(self.max_mb * 2**20)

    @property
    def answer_s(self) -> float:
        """Seconds that a track may take to be embedded, with a process that is just starting and others before it."""
        return 60.0 + 2 * self.time_limit_s
