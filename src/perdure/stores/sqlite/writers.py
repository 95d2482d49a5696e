"""Writers that meet at one SQLite file: one of them carries out the work of all, in one commit.

What takes time is the disk. So the first writer that comes leads; those that come while it commits
wait in line, and the first of them then leads the others. A writer is a thread that is kept waiting
until its work is done, or a task of an event loop; tasks have one thread that leads for all.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from perdure.errors import StoreError
from perdure.stores.sqlite.statements import Transaction, Undo

_BATCH: Final = 256
_GATHER_SECONDS: Final = 0.0001
_GATHERINGS: Final = 3
_WOKEN_AT_ONCE: Final = 4


class Write:
    """One writer's work, and what came of it."""

    __slots__ = ("_error", "_result", "done", "op", "work")

    def __init__(self, work: Callable[[Transaction, Any], Any], op: Any) -> None:
        self.work = work
        self.op = op
        self.done = False
        self._result: Any = None
        self._error: BaseException | None = None

    def carry_out(self, transaction: Transaction) -> bool:
        """Do the work; False: it has failed, or wants what it did to be taken back."""
        self._result = self._error = None
        self.done = True
        try:
            self._result = self.work(transaction, self.op)
        except Undo as taken_back:
            self._result = taken_back.result
            return False
        except sqlite3.Error:
            raise
        except UnicodeEncodeError as error:
            self._error = StoreError(
                f"The store takes text, and this has no UTF-8 form ({error.reason} at "
                f"{error.start}): half a character, as a cut text may end with."
            )
            return False
        except BaseException as error:  # noqa: BLE001  # raised again where it was asked for
            self._error = error
            return False
        return True

    def fails(self, error: BaseException) -> None:
        """Note that nothing of the work has happened."""
        self._error = error
        self.done = True

    def outcome(self) -> Any:
        """Return the result, or raise the error."""
        if self._error is not None:
            raise self._error
        return self._result


class _Threads(Write):
    """The work of a thread that waits for it."""

    __slots__ = ("_interruption", "_woken", "following")

    def __init__(self, work: Callable[[Transaction, Any], Any], op: Any) -> None:
        super().__init__(work, op)
        self.following: _Threads | None = None
        self._interruption: BaseException | None = None
        self._woken: threading.Lock | None = None

    def is_to_wait(self) -> None:
        """Get ready to be woken; a writer that leads at once never is."""
        self._woken = threading.Lock()
        self._woken.acquire()

    def waits(self) -> bool:
        """Wait to be woken; whether the work is done then, or has to be led by this writer.

        An interruption is put off until then: others' work may hang on this writer's.
        """
        assert self._woken is not None
        interruption: BaseException | None = None
        while True:
            try:
                self._woken.acquire()
                break
            except BaseException as error:  # noqa: BLE001  # raised again by outcome()
                interruption = error
        if self.following is not None:
            self.following.wake()
        self._interruption = interruption
        return self.done

    def wake(self) -> None:
        """Wake the writer; its outcome stands, or it is to lead."""
        if self._woken is not None:
            self._woken.release()

    def outcome(self) -> Any:
        """Return the result, or raise the error."""
        if self._interruption is not None:
            raise self._interruption
        return super().outcome()


class _Tasks(Write):
    """The work of a task, which is told of it on its event loop."""

    __slots__ = ("future",)

    def __init__(self, work: Callable[[Transaction, Any], Any], op: Any) -> None:
        super().__init__(work, op)
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def tell(self) -> None:
        """Give the future its outcome."""
        if self.future.cancelled():  # what was in line is done all the same
            return
        try:
            self.future.set_result(self.outcome())
        except BaseException as error:  # noqa: BLE001  # raised where it is awaited
            self.future.set_exception(error)


Line = deque[_Threads | _Tasks]
Batch = list[_Threads | _Tasks]


class Writers:
    """The line, and who leads.

    ``carry_out`` is given a function that takes a batch from the line, which it then does. It
    calls that when nothing else is in the way, so that whoever has come by then is in it.
    """

    def __init__(self, carry_out: Callable[[Callable[[], Batch]], object]) -> None:
        self._carry_out = carry_out
        self._line: Line = deque()
        self._taken: Batch = []
        self._lock = threading.Lock()
        self._led = False
        self._company = 1
        self._thread: ThreadPoolExecutor | None = None

    def write(self, work: Callable[[Transaction, Any], Any], op: Any) -> Any:
        """Let work be done durably; what it returned."""
        mine = _Threads(work, op)
        with self._lock:
            leads = not self._led
            if not leads:
                mine.is_to_wait()
            self._led = True
            self._line.append(mine)
        if leads or not mine.waits():
            self._lead(mine)
        return mine.outcome()

    def write_later(self, work: Callable[[Transaction, Any], Any], op: Any) -> asyncio.Future[Any]:
        """Let work be done durably, also if nobody waits for the future any more."""
        mine = _Tasks(work, op)
        with self._lock:
            leads = not self._led
            self._led = True
            self._line.append(mine)
        if leads:
            self._lead_beside()
        return mine.future

    def beside(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Let the thread that leads for tasks call a function when it is free."""
        with self._lock:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="perdure-writer")
            return self._thread.submit(function, *arguments)

    def close(self) -> None:
        """Let that thread do what it has been given, and end."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()

    def _lead_beside(self) -> None:
        """Let the thread that leads for tasks do it; where there can be none, this one does."""
        try:
            self.beside(self._lead)
        except RuntimeError:  # the interpreter is ending, or has no more threads
            with self._lock:
                thread, self._thread = self._thread, None
            if thread is not None:
                thread.shutdown(wait=False, cancel_futures=True)  # what could not begin is in line
            self._lead()

    def _lead(self, mine: _Threads | None = None) -> None:
        """Carry out everything that waits, then let the next one lead, whatever happens."""
        try:
            self._carry_out(self._take)
        except BaseException as error:
            for write in self._taken:
                write.fails(error)
            raise
        finally:
            with self._lock:
                batch, self._taken = self._taken, []
                while self._line and self._line[0] in batch:  # interrupted as it took them
                    self._line.popleft()
                if mine is not None and mine in self._line:  # interrupted before it could begin
                    self._line.remove(mine)
                following = self._line[0] if self._line else None
                self._led = following is not None
            _tell([write for write in batch if write is not mine])
            if isinstance(following, _Threads):
                following.wake()
            elif following is not None:
                self._lead_beside()

    def _take(self) -> Batch:
        """Take from the line who is there, and who is about to be.

        Those who shared the last commit are given a moment to come again; a lone writer none. It
        lasts while they keep coming: whoever runs meanwhile would slow the work itself down.
        """
        come, waited = len(self._line), 0
        while come < self._company and waited < _GATHERINGS:
            time.sleep(_GATHER_SECONDS)
            come, before = len(self._line), come
            waited = 0 if come > before else waited + 1
        with self._lock:
            self._taken = list(islice(self._line, _BATCH))
            for _ in self._taken:
                self._line.popleft()
        self._company = len(self._taken)
        return self._taken


def _tell(batch: Batch) -> None:
    """Tell the writers of a batch that theirs is done.

    Threads that are woken all at once get in each other's way, in the interpreter and in the
    kernel: so each of them wakes another, first thing. A loop is woken once for all its tasks.
    """
    threads = [write for write in batch if isinstance(write, _Threads)]
    for write, later in zip(threads, threads[_WOKEN_AT_ONCE:], strict=False):
        write.following = later
    for write in threads[:_WOKEN_AT_ONCE]:
        write.wake()
    tasks: defaultdict[asyncio.AbstractEventLoop, list[_Tasks]] = defaultdict(list)
    for one in batch:
        if isinstance(one, _Tasks):
            tasks[one.future.get_loop()].append(one)
    for loop, theirs in tasks.items():
        with suppress(RuntimeError):  # a loop that was closed has nobody to tell
            loop.call_soon_threadsafe(_tell_tasks, theirs)


def _tell_tasks(writes: list[_Tasks]) -> None:
    for write in writes:
        write.tell()
