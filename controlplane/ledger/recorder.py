"""The queue between the request path, which never waits, and the tables, which take batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.db import Database
from controlplane.errors import ControlPlaneError
from controlplane.ledger.batches import write_batch
from controlplane.ledger.records import BreakerEvent, DecisionRecord

BATCH_ROWS_MAX = 1_000
# A commit costs more than a row: waiting this long lets a quiet moment share one.
LINGER_MAX_S = 0.05
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 5.0
STOP_TIMEOUT_S = 30.0

Acknowledge = Callable[[UUID, int], None]
Written = Callable[[Sequence[DecisionRecord]], None]
Sleep = Callable[[float], Awaitable[None]]

_log = structlog.get_logger(__name__)


class RecorderStopped(ControlPlaneError):
    """The recorder is not running, so that nothing will be written."""


class RecordsUnwritten(ControlPlaneError):
    """The recorder had to stop with records that the store would not take."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} decision records could not be written before the deadline")
        self.count = count


class Recorder:
    """Writes records in the order they were put; retries until the store has taken them.

    After each commit, and before any other writer gets the turn, `acknowledge` is called once per
    organization with the largest settlement number that is in the tables. For this to mean *all up
    to it*, records are put in the event-loop step that settled them, without an await between.
    """

    def __init__(
        self,
        database: Database,
        *,
        queue_max: int,
        acknowledge: Acknowledge,
        written: Written = lambda _batch: None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._database = database
        self._queue_max = queue_max
        self._acknowledge = acknowledge
        self._tell_written = written
        self._sleep = sleep
        self._queue: deque[DecisionRecord | BreakerEvent] = deque()
        self._batch: list[DecisionRecord] = []
        self._events: list[BreakerEvent] = []
        self._written = 0
        self._in_doubt = False
        self._stopping = False
        self._arrived = asyncio.Event()
        self._urgent = asyncio.Event()
        self._progress = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many records and events are not known to be in the tables."""
        return len(self._queue) + len(self._batch) + len(self._events)

    @property
    def has_room(self) -> bool:
        """Whether a request may still be admitted; asked before any money is spent."""
        return self.waiting < self._queue_max

    def put(self, record: DecisionRecord) -> None:
        """Take a record, also when the queue is full: what it tells of has happened already."""
        queue = self._queue
        queue.append(record)
        if len(queue) == 1:
            self._arrived.set()
        elif len(queue) == BATCH_ROWS_MAX:
            self._urgent.set()

    def put_event(self, event: BreakerEvent) -> None:
        """Take an opening or closing of a breaker, to be written with the records around it."""
        self._queue.append(event)
        self._arrived.set()
        if len(self._queue) >= BATCH_ROWS_MAX:
            self._urgent.set()

    def start(self) -> None:
        """Begin to write; needs a running event loop."""
        if self._task is not None:
            raise RuntimeError("the recorder was started before")
        self._task = asyncio.create_task(self._run(), name="ledger recorder")

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Write what is waiting, then end.

        Raises `RecordsUnwritten` when the store does not take all of it in time.
        """
        if self._task is None:
            return
        self._stopping = True
        self._arrived.set()
        self._urgent.set()
        done, _ = await asyncio.wait({self._task}, timeout=timeout_s)
        if not done:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self.waiting:
            raise RecordsUnwritten(self.waiting)

    async def flush(self) -> None:
        """Wait until everything put so far is in the tables; never inside `Database.write`.

        Raises `RecorderStopped` when nobody is there to write it.
        """
        target = self._written + self.waiting
        while self._written < target:
            if self._task is None or self._task.done():
                raise RecorderStopped("the recorder is not running")
            self._urgent.set()
            await self._progress.wait()

    @asynccontextmanager
    async def flushed_session(self) -> AsyncIterator[AsyncSession]:
        """Open the writing transaction at a moment when tables and acknowledgements agree.

        Sums read in it hold exactly the settlements acknowledged so far: nothing else commits
        before it ends. Not to be used inside another `Database.write`.
        """
        while True:
            await self.flush()
            async with self._database.write() as session:
                # A batch whose commit failed may be in the tables without being acknowledged.
                if not self._in_doubt:
                    yield session
                    return

    async def _run(self) -> None:
        try:
            while self._queue or not self._stopping:
                await self._until_due()
                self._take()
                await self._write()
        finally:
            # Whoever waits for a flush must see that nobody will write any more.
            asyncio.get_running_loop().call_soon(self._tell_progress)

    async def _until_due(self) -> None:
        await self._arrived.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_MAX_S):
                await self._urgent.wait()

    def _take(self) -> None:
        queue = self._queue
        count = min(len(queue), BATCH_ROWS_MAX)
        taken = [queue.popleft() for _ in range(count)]
        self._batch = [each for each in taken if isinstance(each, DecisionRecord)]
        self._events = [each for each in taken if isinstance(each, BreakerEvent)]
        if not queue and not self._stopping:
            self._arrived.clear()
        if len(queue) < BATCH_ROWS_MAX and not self._stopping:
            self._urgent.clear()

    async def _write(self) -> None:
        pause_s = RETRY_FIRST_S
        while not await self._try_write():
            await self._sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)
        self._in_doubt = False
        self._written += len(self._batch) + len(self._events)
        batch, self._batch, self._events = self._batch, [], []
        self._acknowledge_all(batch)
        self._pass_on(batch)
        self._tell_progress()

    async def _try_write(self) -> bool:
        try:
            async with self._database.write() as session:
                await write_batch(session, self._batch, self._events, cleaned=self._in_doubt)
        except Exception as error:  # noqa: BLE001 - the edge of a task that must outlive any store
            # Kept and tried again: the queue fills and admission stops, but nothing is lost.
            self._in_doubt = True
            # The error's own text quotes the rows, which name end users.
            _log.warning("records_not_written", error=_kind(error), waiting=self.waiting)
            return False
        return True

    def _acknowledge_all(self, batch: list[DecisionRecord]) -> None:
        for organization_id, seq in _largest(batch).items():
            try:
                self._acknowledge(organization_id, seq)
            except Exception:  # noqa: BLE001 - as above
                # The engine then keeps what it could have forgotten; writing must go on.
                _log.exception("acknowledgement_failed", organization_id=str(organization_id))

    def _pass_on(self, batch: list[DecisionRecord]) -> None:
        try:
            self._tell_written(batch)
        except Exception:  # noqa: BLE001 - the edge, as above; figures for people may suffer
            _log.exception("live_figures_failed")

    def _tell_progress(self) -> None:
        told, self._progress = self._progress, asyncio.Event()
        told.set()


def _kind(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__module__}.{type(cause).__qualname__}"


def _largest(batch: list[DecisionRecord]) -> dict[UUID, int]:
    largest: dict[UUID, int] = {}
    for record in batch:
        if record.seq > largest.get(record.organization_id, 0):
            largest[record.organization_id] = record.seq
    return largest
