import errno
import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.telemetry.counting.counter_groups import CELL, LISTENER, SERVER
from txmux.telemetry.counting.counters import Counters, ServerChanges

_NAMES = st.sampled_from(("a", "b", "c"))
_ROUNDS = st.lists(st.lists(st.tuples(st.integers(0, 2), _NAMES)))
"""For each reading, the processes in which a connection to a server has ended without an answer."""


def _cannot(*_: object) -> int:
    raise OSError(errno.EINVAL, "Invalid argument")


class ServerChangesTest(SynchronousTestCase):
    @given(_ROUNDS)
    def test_sums_over_processes_since_the_last_reading(
        self, rounds: list[list[tuple[int, str]]]
    ) -> None:
        counters = Counters()
        changes = ServerChanges(counters)
        known: set[str] = set()
        for events in rounds:
            expected: dict[tuple[str, str], int] = {}
            for process, name in events:
                column = counters.column(process)
                if name not in known:
                    known.add(name)
                    counters.layout.extend([LISTENER.key(name), SERVER.key("x", name)])
                    for number in range(3):
                        counters.grow(counters.column(number))
                column.server("x", name).unanswered()
                expected["x", name] = expected.get(("x", name), 0) + 1
            found = {
                key: cells[SERVER.names.index("unanswered")]
                for key, (cells, *_) in changes.take().items()
            }
            self.assertEqual(found, expected)

    def test_less_than_before(self) -> None:
        counters = Counters()
        changes = ServerChanges(counters)
        counters.layout.extend([SERVER.key("x", "a")])
        counts = counters.column(1).server("x", "a")
        counts.asked(7)
        counts.checked(2.0)
        changes.take()
        counts.checked(1.0)
        ((cells, *_),) = changes.take().values()
        self.assertEqual(cells[SERVER.names.index("asked")], 0)
        for _ in range(5):  # block that gets another server
            counts.asked(7)
        changes.take()
        counts.cells[:] = memoryview(bytes(counts.cells.nbytes)).cast("Q")
        counts.asked(8)
        ((cells, sources, _),) = changes.take().values()
        self.assertEqual((cells[SERVER.names.index("asked")], sources), (1, {8}))

    def test_little_is_read_of_many(self) -> None:
        """Of what was ever counted in, or of all where the system cannot say what that is; each sees the same."""
        counters = Counters()
        changes = ServerChanges(counters)
        names = [str(number) for number in range(5000)]
        counters.layout.extend(SERVER.key("x", name) for name in names)
        column = counters.column(1)
        for is_known in (True, False):
            for name in ("0", "17", "18", "2500", "4999"):
                column.server("x", name).unanswered()
            (image,) = counters.images().values()
            read = sum(map(len, image.written))
            self.assertEqual(len(image.cells), column.layout.cells * CELL)
            self.assertEqual(read < len(image.cells) / 10, is_known)
            self.assertEqual(column.tolist(), column.cells[: column.layout.cells].tolist())
            grown = {
                key[1]: cells[SERVER.names.index("unanswered")]
                for key, (cells, *_) in changes.take().items()
            }
            self.assertEqual(grown, dict.fromkeys(("0", "17", "18", "2500", "4999"), 1))
            self.patch(os, "lseek", _cannot)

    @given(st.lists(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9)))))
    def test_sources_that_got_nothing(self, rounds: list[list[tuple[int, int]]]) -> None:
        """Of each process the last three that wait are known, and the last three that were reset, however often each came."""
        counters = Counters()
        changes = ServerChanges(counters)
        counters.layout.extend([SERVER.key("x", "a")])
        for number in range(4):
            counters.grow(counters.column(number))
        for events in rounds:
            last: dict[tuple[int, int], list[int]] = {}
            for process, source in events:
                counts = counters.column(process).server("x", "a")
                if source % 2:
                    counts.asked(source)
                else:
                    counts.failed("reset", source=source)
                its = last.setdefault((process, source % 2), [])
                its[:] = [source, *(one for one in its if one != source)]
            expected = {source for its in last.values() for source in its[:3]}
            waiting, reset = set[int](), set[int]()
            for _, its_waiting, its_reset in changes.take().values():
                waiting |= its_waiting
                reset |= its_reset
            self.assertEqual(waiting, {source for source in expected if source % 2})
            self.assertEqual(reset, {source for source in expected if not source % 2})
