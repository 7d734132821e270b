"""Calls whose message has not come yet: how many are read at once, how many wait for that, and for how long.

    headers -> Unfinished.piece -> a place -> read -> the message
                                -> no place is free: wait, unread -> a place
                                -> refused: too late, too large, or others waited

gRPC grants a call room for its whole message once somebody reads it, and keeps what has come of it: a call that is read
and never ends costs up to the largest message. One that is not read costs its headers and the first window
(``recsys.serving.transport``). So only as many are read at once as a stated number of bytes allows, and others wait,
which the few bytes of most messages use to arrive. A message that is there takes no time to read, so a queue moves at
once, unless those who are read send nothing more. Where the first in the queue has waited for ``PATIENCE_S``, or many
wait, there is a siege until the queue is empty: more are read at once, and each that has not come within a few looks
at the loop gives way. That is too short for its bytes to become many, and long enough for a message that is there.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from recsys.serving.transport import longest

BYTES = 13 << 20  # of unfinished messages in a worker; with what calls take beside them, some 64 MB
LEAST = 2  # messages that are read at once, however large one may be
MANY_WAITING = 100  # calls, of 23 KB and a first window each: more of them are a siege
MOST_WAITING = 500  # others are refused
BESIEGED_PLACES = 6  # messages that are read at once during a siege: there is less time for their bytes to come
MESSAGE_S = 20.0  # a message may take so long once it is read
PATIENCE_S = 0.25  # the first in the queue waits so long for the places of those who send nothing
SETTLE_S = 0.05  # during a siege a call waits so long before it is read: its message may come behind its headers
_CHANCE = 3  # looks that a message may take during a siege; one that was there is known of after the first
_STEP_S = 0.005  # between looks while calls wait
_CALM_S = 0.5  # between looks while none do

GAVE_WAY = "the message did not come while other calls waited for their turn; try again soon"
TOO_LATE = "the message did not come within {:g} s"
TOO_MANY = "too many calls wait for their messages to be read; try again soon"
NO_MESSAGE = grpc.StatusCode.INVALID_ARGUMENT, "the call has no message"
TOO_LARGE = "the message is larger than max ({:,} vs. {:,} bytes)"

Refusal: TypeAlias = tuple[grpc.StatusCode, str]
Refuse: TypeAlias = Callable[..., Awaitable[None]]
_Task: TypeAlias = "asyncio.Task[Any]"


class Unfinished:
    """The calls of one worker whose messages are read, or wait to be; for the thread of its loop.

    Args:
        max_message: bytes of the largest message of all.
        refuse: ends a call, and raises: given why, its context and what else ``piece`` was told of it.
        n_bytes: how many may be there of unfinished ones.
        message_s: how long one may take.
    """

    def __init__(self, max_message: int, refuse: Refuse, n_bytes: int = BYTES, message_s: float = MESSAGE_S) -> None:
        self._refuse = refuse
        self.n_places = max(n_bytes // longest(max_message), LEAST)
        self._message_s = message_s
        self._reading: dict[_Task, tuple[float, int]] = {}  # when that began, and at which look; the oldest first
        self._told: dict[_Task, Refusal] = {}
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()
        self._called = 0  # from the queue, and not yet among those who are read
        self._besieged = False
        self._looking: asyncio.TimerHandle | None = None
        self._looks_often, self._n_looks = False, 0

    async def piece(self, context: Any, most: int, *about: Any) -> Any:
        """Read a call's next message of up to ``most`` bytes; ``grpc.aio.EOF`` where its client has ended it.

        ``about`` is what ``refuse`` is told of the call.
        """
        if self._waiting or len(self._reading) + self._called >= self.n_places:
            await self._turn(context, about)
        task: Any = asyncio.current_task()
        self._reading[task] = time.monotonic(), self._n_looks
        if self._looking is None:
            self._look_in(_CALM_S)
        try:
            piece = await context.read()
        except asyncio.CancelledError:
            told = self._told.get(task)
            if told is None or task.uncancel():  # the client has left
                raise
            await self._refuse(told, context, *about)  # in its place still: only now is let go of what has come of it
            raise
        finally:
            del self._reading[task]
            if self._told:
                self._told.pop(task, None)
            if self._waiting:
                self._call()
        if piece is grpc.aio.EOF:
            await ended(context)
        elif len(piece) > most:
            too_large = grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_LARGE.format(len(piece), most)
            await self._refuse(too_large, context, *about)
        return piece

    async def _turn(self, context: Any, about: tuple[Any, ...]) -> None:
        """Wait in the queue until called."""
        if len(self._waiting) >= MOST_WAITING:
            await self._refuse((grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MANY), context, *about)
        turn = asyncio.get_running_loop().create_future()
        waiting = turn, time.monotonic()
        self._waiting.append(waiting)
        self._look_in(_STEP_S)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(waiting)
            raise
        finally:
            if not turn.cancelled():
                self._called -= 1

    def _call(self) -> None:
        """Call those who have waited longest, as far as there are places."""
        now = time.monotonic()
        while self._waiting and len(self._reading) + self._called < self._places:
            turn, since = self._waiting[0]
            if self._besieged and now - since < SETTLE_S:
                return
            self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._called += 1

    @property
    def _places(self) -> int:
        return max(BESIEGED_PLACES, self.n_places) if self._besieged else self.n_places

    def _end(self, task: _Task, why: Refusal) -> None:
        if task in self._reading and task not in self._told:
            self._told[task] = why
            task.cancel()

    def _look_in(self, seconds: float) -> None:
        if self._looking is not None:
            if self._looks_often or seconds > _STEP_S:
                return
            self._looking.cancel()
        self._looks_often = seconds <= _STEP_S
        self._looking = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """See who takes too long; again while anything is read or waits."""
        self._looking, now = None, time.monotonic()
        self._n_looks += 1
        impatient = bool(self._waiting) and now - self._waiting[0][1] >= PATIENCE_S
        self._besieged = bool(self._waiting) and (self._besieged or impatient or len(self._waiting) > MANY_WAITING)
        late = grpc.StatusCode.DEADLINE_EXCEEDED, TOO_LATE.format(self._message_s)
        gave_way = grpc.StatusCode.RESOURCE_EXHAUSTED, GAVE_WAY
        loop = asyncio.get_running_loop()
        for task, (since, look) in self._reading.items():
            # Told only behind what has come by now and is on its way to its reader.
            if now - since >= self._message_s:
                loop.call_soon(self._end, task, late)
            elif self._besieged and self._n_looks - look >= _CHANCE:
                loop.call_soon(self._end, task, gave_way)
        self._call()
        if self._reading or self._waiting:
            self._look_in(_STEP_S if self._waiting else _CALM_S)


async def ended(context: Any) -> None:
    """Wait until a call that gives no more messages is known to have ended, if it has: this is then cancelled.

    gRPC says of a call that it refused, or whose client has left, first that no message comes any more, as of a stream
    that is at its end, and then that it is over.
    """
    await context.read()
    for _ in range(3):
        await asyncio.sleep(0)
