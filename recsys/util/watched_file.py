"""Files that are read again when they change: a key ring, certificates. What is known of them is kept by one process.

    files, read  ->  Watched.look  ->  read again where they differ  ->  Watched.value

A read that fails is not remembered as one: until it is known what the files hold, they are tried again at each look.
Where the fault is this machine's and passes (no descriptor is free, a disk answers with an error), what was read last
stays; a file that is gone, may not be read or is damaged is a fault of the file, and its owner says what it means.
"""

import errno
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from recsys.errors import ConfigError

# of this machine at this moment, and not of the file
PASSING = {
    errno.EMFILE,
    errno.ENFILE,
    errno.EIO,
    errno.ENOMEM,
    errno.EINTR,
    errno.EAGAIN,
    errno.ESTALE,
    errno.ETIMEDOUT,
}

T = TypeVar("T")


class Watched(Generic[T]):
    """What was read of files, and when to read them anew; not for use by several threads at once.

    Args:
        files: all that ``read`` reads.
        read: raises ConfigError where they cannot be read, with the OSError as its cause if there is one.

    Raises:
        ConfigError: they cannot be read now.
    """

    def __init__(self, files: Sequence[Path], read: Callable[[], T]) -> None:
        self._files, self._read = files, read
        self._state: Any = self._state_now()
        self.value = read()
        self._failed: Any = None  # the state in which they could not be read, so that this is told once

    def look(self) -> ConfigError | bool:
        """Read the files again where they have changed: whether they were, or why they cannot be.

        A failure is told once as long as the files stay as they are, but for one that passes, which is False as if
        nothing had changed.
        """
        state = self._state_now()
        if state is None or (state == self._state and self._failed is None):
            return False
        try:
            value = self._read()
        except ConfigError as error:
            if passes(error):
                return False
            if state == self._failed:
                return False
            self._failed = state
            return error
        if self._state_now() != state:  # changed while it was read: looked at again next time
            return False
        self.value, self._state, self._failed = value, state, None
        return True

    def _state_now(self) -> Any:
        """What is different once a file has changed; None where that cannot be told at this moment."""
        state = list[Any]()
        for file in self._files:
            try:
                about = file.stat()
            except OSError as error:
                if error.errno in PASSING:
                    return None
                state.append(error.errno)
            else:
                state.append((about.st_mtime_ns, about.st_size, about.st_ino, about.st_mode, about.st_ctime_ns))
        return state


def passes(error: BaseException | None) -> bool:
    """Whether a failure, or one that it came of, is this machine's at this moment and not the file's."""
    while error is not None:
        # An SSLError is an OSError whose number is OpenSSL's own.
        if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno in PASSING:
            return True
        error = error.__cause__
    return False
