"""The classes of errors in, a table of them with exit status and gRPC status out."""

import inspect

from recsys import errors
from recsys.cli.main import EXIT


def markdown() -> str:
    """A row for each class, below the one that it is made from."""
    rows = []
    for depth, kind in _tree(errors.RecsysError, 0):
        builtin = next((base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"), "")
        message = " ".join(inspect.cleandoc(kind.__doc__ or "").split()).replace("``", "`")
        rows.append(
            f"| {'&nbsp;&nbsp;&nbsp;' * depth}`{kind.__name__}` | `{builtin}` | {exit_status(kind)} | {message} |"
        )
    return "\n".join(["| class | also a | exit status | when |", "|---|---|---|---|", *rows])


def exit_status(kind: type[errors.RecsysError]) -> int:
    """The status that the command line ends with."""
    return next(status for parent, status in EXIT if issubclass(kind, parent))


def _tree(kind: type[errors.RecsysError], depth: int) -> list[tuple[int, type[errors.RecsysError]]]:
    below = sorted(kind.__subclasses__(), key=lambda each: each.__name__)
    return [(depth, kind), *(found for each in below for found in _tree(each, depth + 1))]
