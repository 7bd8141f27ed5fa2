"""The process that this one replaces in an upgrade."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txmux.errors import MuxError
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, ChannelError, attach
from txmux.net.channel.descriptorstream import close_all
from txmux.net.channel.message import Message
from txmux.processes.liveness import HangDetector, activity_of
from txmux.processes.upgrade import ENDS
from txmux.processes.upgrade.upgrade import BY_CONNECTION, LIMITS, VERSION
from txmux.telemetry.counting.counters import Counters
from txmux.wire.jsontext import parse_json

_PATIENCE = 10.0
"""Seconds for the first message, which was sent before this process started."""
_LOOK = 1.0  # seconds between two looks at what it does
_STDERR = 2

_log = Logger()


class Predecessor:
    """The old process, from its first message on; it is a `MuxError` if that is not valid."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._parent = os.getppid()
        self._channel: Channel | None = None
        end.settimeout(_PATIENCE)
        descriptors: list[int] = []
        try:
            line = _receive(end, descriptors)
            message = parse_json(line)
            self._number = message["ask"]
            values = messages.BEGIN.read(message, len(line))
            self._version: int = values["version"]
            stderr, *opened = descriptors
            by_key = dict(zip(values["sockets"], opened, strict=True))
            self.state: dict[str, Any] = values["state"]
        except (KeyError, MuxError, OSError, TypeError, ValueError) as problem:
            close_all(descriptors)
            raise MuxError(f"the old process handed nothing over: {problem!r}") from problem
        os.dup2(stderr, _STDERR)
        os.close(stderr)
        self.sockets: Mapping[str, socket.socket] = {
            key: socket.socket(fileno=descriptor) for key, descriptor in by_key.items()
        }

    @classmethod
    def find(cls) -> Predecessor | None:
        """Return it to the first caller; ``None`` if this process was not started by an upgrade."""
        number = os.environ.pop(ENDS, None)
        if number is None:
            return None
        os.set_inheritable(int(number), False)  # noqa: FBT003 - its name does not take it
        return cls(socket.socket(fileno=int(number)))

    def take_limits(self) -> tuple[int, Mapping[str, Any]] | None:
        """Return the memory of its limits, which the caller closes, and what is where in it; ``None`` if it hands none on.

        The variable may be left from a process before that one, for which its descriptor was another one: what counts is the file.
        """
        number, values = os.environ.pop(LIMITS, ""), self.state.get("limits", {})
        with suppress(OSError, ValueError):
            if os.fstat(int(number)).st_ino == values.get("file"):
                os.set_inheritable(int(number), False)  # noqa: FBT003 - as above
                return int(number), values
        return None

    def attach(
        self,
        reactor: Any,
        handlers: dict[Message, Callable[..., object]],
        lost: Callable[[], object],
        **more: Any,
    ) -> None:
        """Report that this process is ready, and handle the requests of the old one from now on."""
        channel = self._channel = Channel(handlers, lost, reactor)
        attach(reactor, channel, self._end.dup())
        self._end.close()
        version = BY_CONNECTION if self.gives_connections else VERSION
        channel.answer(self._number, value={"version": version, **more})

    @property
    def gives_connections(self) -> bool:
        return self._version == BY_CONNECTION

    def lend(self, counters: Counters) -> None:
        """Lend the counters: if this process dies before it has all connections, the old one counts those of its workers by them."""
        if self._channel is not None:
            with suppress(OSError):  # there may be no descriptor left
                fields, descriptors = counters.programs()[0].lent()
                lent = self._channel.ask(messages.COUNT_BACK, descriptors=descriptors, **fields)
                lent.addErrback(lambda failure: failure.trap(ChannelError))

    async def report_exit(self) -> None:
        """Report that this process ends on purpose: one that keeps its workers would serve again."""
        if self._channel is not None and self.gives_connections:
            with suppress(ChannelError):  # the old process has ended
                await self._channel.ask(messages.EXITS, seconds=_PATIENCE, on=True)

    def kill(self, why: str = "does not end") -> None:
        """End it if it still is there, and has started this process: what it had is this one's."""
        if self.is_there:
            _log.warn("the old process {pid} {why}; it is killed", pid=self._parent, why=why)
            os.kill(self._parent, signal.SIGKILL)

    @property
    def is_there(self) -> bool:
        is_open = self._channel is not None and self._channel.is_open
        return is_open and os.getppid() == self._parent

    def kill_if_it_hangs(self, reactor: Any, is_over: Callable[[], bool]) -> None:
        """Judge it until `is_over` by what it does: it has something to say, so that its loop has not turned meanwhile."""
        if self._version != VERSION:
            return  # it keeps its workers, and asks nothing
        silence = HangDetector()

        def look() -> None:
            if not is_over() and self.is_there:
                silence.observe(activity_of(self._parent), has_turned=False)
                if not (why := silence.why()):
                    return
                self.kill(f"{why}, and this one serves")
            looking.stop()

        looking = LoopingCall(look)
        looking.clock = reactor
        looking.start(_LOOK)

    def fail(self, why: object) -> None:
        answer = {"kind": "answer", "to": self._number, "error": f"cannot serve: {why}"}
        with suppress(OSError):  # the old process has ended
            self._end.sendall(json.dumps(answer).encode() + b"\n")


def _receive(end: socket.socket, descriptors: list[int]) -> bytes:
    """Read a line of a `Channel`, and collect its descriptors."""
    line = bytearray()
    while not line.endswith(b"\n"):
        data, received, _, _ = socket.recv_fds(end, 2**16, 253)
        descriptors += received
        if not data:
            raise ConnectionError("it is gone")
        line += data
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - its name does not take it
    return bytes(line)
