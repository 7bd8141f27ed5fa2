"""What one process counts for its limits, over changes of the rules."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from txmux.frontend.limits.admission import Admission, Counter, Tally
from txmux.frontend.limits.per_source import PerSource, SourceLimits, SourceTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.rules.model import Listener


class Counted:
    """Makes admissions, of which those for listeners of one name count together.

    What they count is kept as long as there is such an admission, and a connection keeps its own.

    Args:
        seconds: Tells the time.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._service = Counter()
        self._listeners: WeakValueDictionary[str, Counter] = WeakValueDictionary()
        self._sources: WeakValueDictionary[str, SourceTable] = WeakValueDictionary()

    def admission(self, listener: Listener, most: int) -> Admission:
        """Make what decides who may come in by a listener.

        Args:
            listener: With its own limits.
            most: Connections of all listeners together; 0 is no limit.
        """
        counter = self._listeners.setdefault(listener.name, Counter())
        limits = SourceLimits.of(listener)
        per_source = None
        if limits is not None:
            table = self._sources.get(listener.name)
            if table is None:
                table = SourceTable(mmap.mmap(-1, SourceTable.size(1)))
                self._sources[listener.name] = table
            per_source = PerSource(limits, self._seconds, table)
        return Admission(
            listener,
            self._seconds,
            service=Tally(most, self._service),
            listener=Tally(listener.max_connections, counter),
            per_source=per_source,
        )
