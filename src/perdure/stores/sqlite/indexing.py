"""Letting the search index follow the log, beside the turns and not in their way."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from perdure.engine import ops
from perdure.errors import StoreError
from perdure.flow import Op

_PORTION: Final = 64  # items: an entry made alone costs more than several together
_CONVERSATIONS_MOST: Final = 10_000
log = logging.getLogger("perdure")


class Indexer:
    """Counts what is written, and enters it when a conversation has a portion of it.

    Nothing depends on it: whoever searches lets the index catch up first.
    """

    def __init__(self, perform: Callable[[Op[Any]], Any]) -> None:
        self._perform = perform
        self._behind: dict[tuple[str, int], int] = {}
        self._due: deque[tuple[str, int]] = deque()
        self._thread: threading.Thread | None = None
        self._ended = False

    def note(self, tenant: str, conversation: int, items: int) -> None:
        """Count the items that an operation has written."""
        place = (tenant, conversation)
        behind = self._behind.get(place, 0) + items
        if behind < _PORTION:
            if len(self._behind) >= _CONVERSATIONS_MOST:
                self._behind.clear()
            self._behind[place] = behind
            return
        self._behind.pop(place, None)
        self._due.append(place)
        if self._thread is None or not self._thread.is_alive():
            self._ended = False
            self._thread = threading.Thread(target=self._work, name="perdure-index", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while self._due and not self._ended:
            tenant, conversation = self._due.popleft()
            try:
                while not self._perform(ops.Index(tenant, conversation, _PORTION)):
                    if self._ended:
                        return
            except StoreError:  # a search enters what is missing
                log.warning("the search index was not brought up to date", exc_info=True)

    def close(self, seconds: float) -> None:
        """Let the entry under way be finished, and begin no other."""
        self._ended = True
        if self._thread is not None:
            self._thread.join(seconds)
