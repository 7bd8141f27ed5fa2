"""The process that this one replaces in an upgrade."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from txmux.access.across_processes import SharedLimits
from txmux.errors import MuxError
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, ChannelError, attach
from txmux.net.channel.descriptorstream import close_all
from txmux.net.channel.message import Message
from txmux.processes.upgrade import ENDS
from txmux.processes.upgrade.upgrade import LIMITS, VERSION
from txmux.telemetry.counting.counters import Counters
from txmux.wire.jsontext import parse_json

_PATIENCE = 10.0
"""Seconds for the first message, which was sent before this process started."""
_PROMPT = 2.0
"""Seconds that it has to close sockets; new clients get no answer there meanwhile."""
_STDERR = 2


class Predecessor:
    """The old process, from its first message on; it is a `MuxError` if that is not valid."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._limits: int | None = None
        self._channel: Channel | None = None
        self._lent: object = None  # the columns
        end.settimeout(_PATIENCE)
        descriptors: list[int] = []
        try:
            line = _receive(end, descriptors)
            message = parse_json(line)
            self._number = message["ask"]
            values = messages.BEGIN.read(message, len(line))
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
        memory = os.environ.pop(LIMITS, None)
        os.set_inheritable(int(number), False)  # noqa: FBT003 - its name does not take it
        predecessor = cls(socket.socket(fileno=int(number)))
        if memory is not None:
            os.set_inheritable(int(memory), False)  # noqa: FBT003 - as above
            predecessor._limits = int(memory)
        return predecessor

    def take_limits(self) -> tuple[int, Mapping[str, Any]] | None:
        """Return the memory of its limits, which the caller closes, and what is where in it; ``None`` if it hands none on."""
        memory, self._limits = self._limits, None
        return None if memory is None else (memory, self.state.get("limits", {}))

    def attach(
        self,
        reactor: Any,
        handlers: dict[Message, Callable[..., object]],
        lost: Callable[[], object],
        processes: int,
    ) -> None:
        """Report that this process is ready, and handle the requests of the old one from now on."""
        channel = self._channel = Channel(handlers, lost, reactor)
        attach(reactor, channel, self._end.dup())
        self._end.close()
        channel.answer(self._number, value={"version": VERSION, "processes": processes})

    async def report_exit(self, *, on: bool) -> None:
        """Report that this process ends on purpose, or not after all; otherwise the old one serves again after its end."""
        if self._channel is not None:
            with suppress(ChannelError):  # the old process has ended
                await self._channel.ask(messages.EXITS, seconds=_PATIENCE, on=on)

    def count_back(
        self, counters: Counters, limits: SharedLimits, *, is_layout_known: bool = False
    ) -> None:
        """Lend the counters: if this process dies, the old one counts the connections of its workers by them.

        With `is_layout_known`, only if workers were started since the last call: of thousands of routes, it takes a while. The memory of the limits is the same in both; the old process learns what this one has placed there.
        """
        if self._channel is not None:
            with suppress(OSError):  # there may be no descriptor left
                program = counters.programs()[0]
                before, self._lent = self._lent, program.columns
                if is_layout_known and program.columns == before:
                    return
                fields, descriptors = program.lent()
                lent = self._channel.ask(
                    messages.COUNT_BACK,
                    descriptors=descriptors,
                    limits=limits.handed_over(),
                    **fields,
                )
                lent.addErrback(lambda failure: failure.trap(ChannelError))

    async def leave_out(self, keys: Sequence[str]) -> None:
        """Ask it to close removed sockets, as each process before it does; a `ChannelError` if it does not."""
        if self._channel is not None and self._channel.is_open:
            await self._channel.ask(messages.LEAVE_OUT, seconds=_PROMPT, keys=[*keys])

    def override(self, overrides: Mapping[str, Any]) -> None:
        if self._channel is not None:
            self._channel.send(messages.OVERRIDE, overrides=overrides)

    def follow(self, changes: Mapping[str, Any]) -> None:
        if self._channel is not None:
            self._channel.send(messages.FOLLOW, **changes)

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
