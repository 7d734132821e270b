"""The format of a live.lmdb: which databases it has, and who may open it.

    open file, name  ->  find_database  ->  the database, None where a file of before has none, or a refusal

Format 1 said nothing of itself, and the program that wrote it looks for nothing. So in format 2 ``state`` is called
``state 2`` in the file, and the former name stands for a line of text: where a version that knows format 1 alone opens
that as a database, LMDB refuses (MDB_INCOMPATIBLE), and the program says that it cannot open the live store, and writes
nothing. A file of format 1 is moved on by the first process that opens it to write, in one transaction. From here on
``format`` in ``state`` is a number, and a version refuses every later one.
"""

import struct
from typing import Any

import lmdb

from recsys.errors import NewerError

FORMAT = 2
STATE, IN_FILE = "state", b"state 2"
KEY = b"format"
MARK = b"format 2: a newer recsys wrote this file; update the one that looks for a database here"
_NUMBER = struct.Struct(">Q")  # as other numbers of the file


def find_database(opened: Any, name: str, transaction: Any, create: bool) -> Any:
    """Find a database of an open file, or make it; None where it is not there and not to be made.

    Args:
        opened: LMDB's environment.
        name: of the database.
        transaction: one that writes, None where the environment only reads.
        create: make what is missing, which needs a transaction that writes.

    Raises:
        NewerError: a newer version wrote the file.
        lmdb.Error: it is damaged.
    """
    if name != STATE:
        return _opened(opened, name.encode(), transaction, create)
    found = _opened(opened, IN_FILE, transaction, create=False)
    if found is not None:
        _check(_read(opened, found, transaction))
        return found
    former = _opened(opened, STATE.encode(), transaction, create=False)
    return _moved_on(opened, former, transaction) if create else former


def is_moved_on(opened: Any) -> bool:
    """Whether a file that is open for reading has the state of format 2; another process may move it on meanwhile."""
    return _opened(opened, IN_FILE, None, create=False) is not None


def _moved_on(opened: Any, former: Any, transaction: Any) -> Any:
    """Make the state of format 2, from that of format 1 where there is one."""
    state = opened.open_db(IN_FILE, txn=transaction)
    if former is not None:
        with transaction.cursor(former) as cursor:
            for key, value in cursor:
                transaction.put(key, value, db=state)
        transaction.drop(former, delete=True)
    transaction.put(KEY, _NUMBER.pack(FORMAT), db=state)
    transaction.put(STATE.encode(), MARK)
    return state


def _opened(opened: Any, name: bytes, transaction: Any, create: bool) -> Any:
    try:
        return opened.open_db(name, txn=transaction, create=create)
    except lmdb.NotFoundError:
        return None


def _read(opened: Any, state: Any, transaction: Any) -> bytes | None:
    if transaction is not None:
        within: bytes | None = transaction.get(KEY, db=state)
        return within
    with opened.begin() as reading:
        found: bytes | None = reading.get(KEY, db=state)
        return found


def _check(line: bytes | None) -> None:
    number = _NUMBER.unpack(line)[0] if line is not None and len(line) == _NUMBER.size else FORMAT
    if number > FORMAT:
        raise NewerError(
            f"the live store has the format {number}, expected {FORMAT} or less: a newer recsys wrote it; "
            "update this one"
        )
