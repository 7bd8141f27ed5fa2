"""What a test leaves behind fails it: descriptors, threads, timers, child processes, namespaces and temporary files.

Tests of one class may share servers, which belong to the class: it is compared when it has ended, and so is each module.
"""

import contextlib
import gc
import itertools
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import TestResult

import pytest
from twisted.internet import reactor as any_reactor
from twisted.internet.protocol import Factory
from twisted.logger import globalLogBeginner, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.support.ports import listen_tcp
from txmux.net.sockets.descriptors import DESCRIPTORS
from txmux.net.turns import in_thread, look_in_thread

_reactor: Any = any_reactor
_NAMESPACES = Path("/run/netns")

Hook = Generator[None, object, object]
State = dict[tuple[str, Hashable], object]
"""What there is, by its kind and what tells it from others. The values keep objects alive, so that none is taken for another."""


def look() -> State:
    state: State = {}
    for kind, find in _KINDS.items():
        for key, thing in find():
            state[kind, key] = thing
    return state


def _descriptors() -> Iterator[tuple[Hashable, object]]:
    with contextlib.suppress(FileNotFoundError):  # not Linux
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - this is done for each test
            # The descriptor by which this folder is read is gone by now.
            with contextlib.suppress(FileNotFoundError):
                yield (name, os.readlink(f"/proc/self/fd/{name}")), None  # noqa: PTH115 - as above


def _children() -> Iterator[tuple[Hashable, object]]:
    """Find children, also those that have ended and have not been waited for (proc_pid_task(5))."""
    with contextlib.suppress(ChildProcessError, AttributeError):  # there are none; or no Linux
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                for pid in (task / "children").read_text().split():
                    yield pid, None
    if forks := sys.modules.get("tests.support.forks"):
        with contextlib.suppress(OSError):
            for pid in forks.forked():
                yield pid, None


def _namespaces() -> Iterator[tuple[Hashable, object]]:
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(_NAMESPACES):  # noqa: PTH208 - this is done for each test
            if name.startswith(f"txmux-{os.getpid()}-"):
                yield name, None


def _each(things: Iterable[object]) -> Iterator[tuple[Hashable, object]]:
    return ((id(thing), thing) for thing in things)


_KINDS: dict[str, Callable[[], Iterator[tuple[Hashable, object]]]] = {
    "descriptor": _descriptors,
    "room for a server's": lambda: ((number, None) for number in range(DESCRIPTORS.reserved)),
    "thread": lambda: _each(threading.enumerate()),
    "delayed call": lambda: _each(_reactor.getDelayedCalls()),
    "reader or writer": lambda: _each((*_reactor.getReaders(), *_reactor.getWriters())),
    "child process": _children,
    "temporary file": lambda: ((name, None) for name in os.listdir(tempfile.gettempdir())),  # noqa: PTH208 - this is done for each test
    "network namespace": _namespaces,
}


def added_since(before: State, patience: float) -> State:
    added = _added_now(before)
    if not added:
        return added
    DESCRIPTORS.close_cached()  # pipes that are kept for the next connection
    deadline, pause = time.monotonic() + patience, 0.001
    for number in itertools.count(1):
        # A test without a reactor does not see that a thread has done its job.
        if _reactor.threadCallQueue:
            _reactor.runUntilCurrent()
        is_held = any(kind != "child process" for kind, _ in added)
        added.clear()
        if is_held:
            # What only a circle of references holds; a thread that is about to end may leave one. Nearly all are young.
            gc.collect(1 if number % 5 else 2)
        if (added := _added_now(before)) and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(4 * pause, 0.2)
        else:
            break
    return added


def _added_now(before: State) -> State:
    return {key: thing for key, thing in look().items() if key not in before}


def _describe(kind: str, key: Any, thing: object) -> str:
    if kind == "descriptor":
        number, target = key
        return f"{number}, {target}{_describe_socket(int(number)) if 'socket:' in target else ''}"
    if kind == "child process":
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{key}/cmdline").read_text(errors="replace").replace("\0", " ")
            return f"{key}, {words.strip() or 'ended, but nobody has waited for it'}"
    if isinstance(thing, threading.Thread):
        return f"{thing!r} of {getattr(thing, '_target', None)!r}"
    return str(key) if thing is None else repr(thing)


def _describe_socket(descriptor: int) -> str:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as same:
        return f", {same!r}"
    return ""


class _WarmUp(TestCase):
    """Has opened what is kept for good: by the reactor what wakes it, and a descriptor in reserve; by the tests their range of ports; by txmux its threads."""

    async def listen(self) -> None:
        await in_thread(int)
        await look_in_thread(int)
        await listen_tcp(_reactor, Factory(), interface="127.0.0.1").stopListening()


class _Frozen:
    """Keeps what has been imported frozen: to look through it all would take each `gc.collect` of a test a third of a second."""

    def __init__(self) -> None:
        self._freeze = gc.freeze
        gc.freeze = self._note  # the count of what is frozen takes as long as to look through it
        self._is_noted = True
        self.restore()

    def _note(self) -> None:
        self._is_noted = True
        self._freeze()

    def restore(self) -> None:
        """Free what a test, or txmux in this process, has frozen since, or has unfrozen."""
        if self._is_noted:
            self._is_noted = False
            gc.unfreeze()
            gc.collect()
            self._freeze()


class Guard:
    """Compares what there is after each test, class and module with what there was before: a plugin of pytest.

    Args:
        patience: Seconds for what is about to end, such as a thread whose socket has been closed.
    """

    def __init__(self, patience: float = 180.0) -> None:
        self._patience = patience
        self._before: dict[pytest.Item | pytest.Collector, State] = {}
        self._reported: State = {}
        self._has_failed = False
        self._folder = ""
        self._frozen: _Frozen

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Hook:
        """Look before the class or the module begins."""
        if not self._folder:
            self._folder = own_temporary_folder()
            _WarmUp("listen").run(TestResult())
            # Until then, events are kept for whoever begins to log, with all that they are about.
            globalLogBeginner.beginLoggingTo((), discardBuffer=True, redirectStandardIO=False)
            self._frozen = _Frozen()
        begins = [node for node in _groups(item) if node not in self._before]
        if begins:
            self._before.update(dict.fromkeys(begins, look()))
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Hook:
        """Look before the test; what belongs to its class is there already."""
        self._before[item] = look()
        self._has_failed = True
        result = yield
        # What fails within `capturedLogs` leaves its list there, which would keep all that others log about.
        for observer in [*globalLogPublisher._observers]:
            if isinstance(getattr(observer, "__self__", None), list):
                globalLogPublisher.removeObserver(observer)
        # A `unittest.TestCase` that has failed, or was skipped, raises nothing.
        self._has_failed = bool(getattr(item, "_excinfo", None))
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> Hook:
        """Look when the test has ended, and maybe the class and the module with it."""
        instance = getattr(item, "instance", None)
        result = yield
        if instance is not None:
            # pytest has made it while it collected, so that it is old; in a circle with what the test has made, it would make that old, too.
            vars(instance).clear()
        self._frozen.restore()
        before = self._before.pop(item, None)
        if before is not None and self._has_failed:
            # What it should have ended is left behind for a reason that is told.
            self._reported |= added_since({**before, **self._reported}, patience=1)
        stay = _groups(nextitem)
        groups = [node for node in reversed(_groups(item)) if node in self._before]
        said = [] if before is None or self._has_failed else [self._compare("this test", before)]
        said += [
            self._compare(node.name, self._before.pop(node)) for node in groups if node not in stay
        ]
        if any(said):
            pytest.fail("\n".join(filter(None, said)), pytrace=False)
        return result

    def pytest_unconfigure(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        gc.collect()
        gc.freeze()  # pytest looks five times more for what nobody holds

    def _compare(self, whose: str, before: State) -> str:
        added = added_since({**before, **self._reported}, self._patience)
        self._reported |= added
        lines = (f"\n  {kind}: {_describe(kind, key, its)}" for (kind, key), its in added.items())
        return f"{whose} has left behind:{''.join(lines)}" if added else ""


def _groups(item: pytest.Item | None) -> list[pytest.Collector]:
    nodes = item.listchain() if item is not None else []
    return [node for node in nodes if isinstance(node, (pytest.Module, pytest.Class))]


def own_temporary_folder() -> str:
    """Make a folder for all temporary files of this process and its children, and give it; its path is short for UNIX sockets."""
    # pytest removes its own later.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix="t")
    Path(folder).chmod(0o1777)  # some of them run as another user
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    return folder
