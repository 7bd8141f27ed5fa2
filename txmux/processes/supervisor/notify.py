"""Reports the state of the service to systemd, which keeps its sockets (sd_notify(3), systemd's FILE_DESCRIPTOR_STORE)."""

import errno
import os
import socket
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from txmux.net.channel.descriptorstream import close_all
from txmux.net.sockets.plainsocket import is_shut
from txmux.serving.listen_addresses import key_of, systemd_descriptor
from txmux.telemetry.steps import RecurringSteps

_log = Logger()
_PREFIX = "txmux."
_LONGEST_NAME = 255
_DATAGRAMS = int(socket.SOCK_DGRAM) | int(getattr(socket, "SOCK_NONBLOCK", 0))
_LONGEST_STATUS = 2048  # bytes: systemd ignores messages of over 4096
_AGAIN = 0.05  # seconds between two attempts to send while systemd does not take what is sent
_MOST_WAITING = 1000  # messages without a descriptor
_LONGEST = 5.0  # seconds that systemd has for what waits at the end of this process
_PINGS = 10  # in the time after which systemd takes the service for dead


class Notifier:
    """Sends the state of the service to ``$NOTIFY_SOCKET``, if there is one.

    Attributes:
        keeps: Whether systemd keeps descriptors for the next process of the service.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        clock: IReactorTime,
        recurring: RecurringSteps | None = None,
    ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._states = _Outbox(address, clock)
        # Of their own: systemd may take no descriptors for now, and has to hear all else.
        self._store = _Outbox(address, clock)
        self._clock = clock
        self._recurring = recurring or RecurringSteps()
        self._watchdog: LoopingCall | None = None
        self._interval = _seconds(environment.get("WATCHDOG_USEC", ""))
        self._stored: set[str] = set()
        self._given: dict[str, int] = {}  # the inode of each
        self._is_there = bool(address)
        self.keeps = self._is_there and environment.get("FDSTORE", "0") != "0"

    def ready(self, status: str, *, is_new_main: bool = False) -> None:
        """Report READY; `is_new_main` if this process has replaced another one."""
        shown = status.encode(errors="backslashreplace")[:_LONGEST_STATUS].decode(errors="ignore")
        self._send(*_main(is_new_main), "READY=1", f"STATUS={shown}")

    def reloading(self) -> None:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self, *, is_new_main: bool = False) -> None:
        self._send(*_main(is_new_main), "STOPPING=1", "STATUS=stopping: connections finish")

    def watch(self, is_healthy: Callable[[], bool]) -> None:
        """Ping the watchdog of systemd while `is_healthy`; otherwise systemd restarts the service."""
        if self._is_there and self._interval:
            self._watchdog = LoopingCall(
                self._recurring.run, "report to systemd that it lives", self._show, is_healthy
            )
            self._watchdog.clock = self._clock
            self._watchdog.start(self._interval / _PINGS)

    def _show(self, is_healthy: Callable[[], bool]) -> None:
        if is_healthy() and not self._states.waiting:
            self._send("WATCHDOG=1")

    def stop(self) -> None:
        if self._watchdog is not None and self._watchdog.running:
            self._watchdog.stop()

    def taken(self, keys: Iterable[str], useless: Iterable[str] = ()) -> None:
        """Record the sockets that systemd has stored; remove useless ones, which it would keep beside new ones of that name."""
        self._stored.update(keys)
        for key in useless:
            self._store.send("FDSTOREREMOVE=1", f"FDNAME={_name(key)}")

    def store(self, sockets: Mapping[str, socket.socket]) -> None:
        """Store exactly these sockets with systemd, except those that it has opened itself."""
        if not self._is_there:
            return
        storable = {
            key: opened
            for key, opened in sockets.items()
            if not key.startswith("systemd:") and len(_name(key)) <= _LONGEST_NAME
        }
        inodes = {key: os.fstat(opened.fileno()).st_ino for key, opened in storable.items()}
        replaced = {key for key, inode in self._given.items() if inodes.get(key, inode) != inode}
        for key in (self._stored - storable.keys()) | replaced:
            self._store.send("FDSTOREREMOVE=1", f"FDNAME={_name(key)}")
        # systemd does not take a descriptor twice.
        for key in (storable.keys() - self._given) | replaced:
            name, descriptor = f"FDNAME={_name(key)}", storable[key].fileno()
            if not self._store.send("FDSTORE=1", name, descriptors=[descriptor]):
                del inodes[key]
        self._stored, self._given = set(storable), inodes

    def _send(self, *lines: str) -> None:
        self._states.send(*lines)

    async def until_sent(self) -> None:
        """Wait until systemd has been told all of it, but for `_LONGEST` at most."""
        end = self._clock.seconds() + _LONGEST
        while (self._states.waiting or self._store.waiting) and self._clock.seconds() < end:
            await deferLater(self._clock, _AGAIN)

    async def end(self) -> None:
        self.stop()
        await self.until_sent()
        self._states.give_up()
        self._store.give_up()


class _Outbox:
    """Sends messages in their order without waiting: what systemd does not take at once is tried again."""

    def __init__(self, address: str, clock: Any) -> None:
        # In the abstract namespace (unix(7)) if it begins with @.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._clock = clock
        self._again: IDelayedCall | None = None
        self.waiting: deque[tuple[bytes, list[int]]] = deque()

    def send(self, *lines: str, descriptors: Sequence[int] = ()) -> bool:
        """Send a message, or let it wait; return false if there is no room for it."""
        if not self._address:
            return True
        text = "\n".join(" ".join(line.split()) for line in lines).encode()
        if self.waiting or not self._try(text, descriptors):
            try:
                if len(self.waiting) >= _MOST_WAITING:
                    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                self.waiting.append((text, [*map(os.dup, descriptors)]))
            except OSError as problem:
                _report(text, problem)
                return False
        self._try_again()
        return True

    def _try_again(self) -> None:
        if self.waiting and self._again is None:
            self._again = self._clock.callLater(_AGAIN, self._send_waiting)

    def _send_waiting(self) -> None:
        self._again = None
        while self.waiting and self._try(*self.waiting[0]):
            close_all(self.waiting.popleft()[1])
        self._try_again()

    def give_up(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        while self.waiting:
            text, descriptors = self.waiting.popleft()
            close_all(descriptors)
            _report(text, TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))

    def _try(self, text: bytes, descriptors: Sequence[int]) -> bool:
        """Send a message; return false if systemd does not take it yet."""
        try:
            with socket.socket(socket.AF_UNIX, _DATAGRAMS) as sender:
                sender.connect(self._address)
                socket.send_fds(sender, [text], descriptors)
        except OSError as problem:
            if problem.errno in {errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS}:
                return False
            _report(text, problem)
        return True


def _main(is_new: bool) -> list[str]:  # noqa: FBT001 - passed on
    return [f"MAINPID={os.getpid()}"] if is_new else []


def _report(text: bytes, problem: OSError) -> None:
    _log.warn(
        "systemd cannot be notified of {text}: {problem}",
        text=text.decode(),
        problem=problem.strerror,
    )


def name_passed_sockets(environment: MutableMapping[str, str]) -> None:
    """Name the descriptors that are passed to this process (sd_listen_fds(3)).

    The names are optional, but Twisted takes no descriptor without one. It reads the variables when its endpoints are imported,
    so this comes before rules are read.
    """
    number = environment.get("LISTEN_FDS", "")
    if number.isdecimal():
        environment.setdefault("LISTEN_FDNAMES", ":".join(["unknown"] * int(number)))


def sockets_from_systemd(
    reactor: Any, environment: Mapping[str, str]
) -> tuple[dict[str, socket.socket], dict[str, socket.socket], list[str]]:
    """Take the sockets that systemd passes to this process (sd_listen_fds_with_names(3)).

    Returns:
        The stored sockets, the TCP and UDP sockets of its socket units, and the keys of stored sockets that are unusable.
    """
    names = environment.get("LISTEN_FDNAMES")
    stored: dict[str, socket.socket] = {}
    own: dict[str, socket.socket] = {}
    useless: list[str] = []
    if not names:
        return stored, own, useless
    for name, descriptor in zip(names.split(":"), _passed(reactor), strict=False):
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            continue
        key = unquote(name.removeprefix(_PREFIX))
        # A unit called txmux.socket gives its own sockets that name.
        if not name.startswith(_PREFIX) or ":" not in key:
            # The descriptor stays open, and `systemd:` can ask for it again.
            copy = socket.socket(fileno=os.dup(descriptor))
            if address := key_of(copy):
                own[address] = copy
            else:
                copy.close()
            continue
        passed = socket.socket(fileno=descriptor)
        passed.set_inheritable(False)
        if _is_usable(key, passed):
            stored[key] = passed
        else:
            passed.close()
            useless.append(key)
    return stored, own, useless


def _passed(reactor: Any) -> Iterator[int]:
    with suppress(IndexError):
        for index in count():
            yield systemd_descriptor(reactor, f"systemd:domain=UNIX:index={index}")


def _is_usable(key: str, stored: socket.socket) -> bool:
    """Return whether clients can still connect: the file of a UNIX socket may have been removed."""
    with suppress(OSError):
        is_there = stored.family != socket.AF_UNIX or Path(key.partition("unix:")[2]).exists()
        return is_there and not is_shut(key, stored)
    return False


def _name(key: str) -> str:
    return _PREFIX + quote(key, safe="/.[]")


def _seconds(microseconds: str) -> float:
    return int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0
