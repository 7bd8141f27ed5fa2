"""The side that asks the privileged helper to open files and ports, or to write the file of ``--pidfile``.

The helper is started before the rest of the service becomes the user of the rules (privilege separation). So later workers
read the same keys, and changed rules may use a port below 1024 or a certificate that only root can read. It reads the rules itself,
and refuses everything else.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from txmux.errors import MuxError
from txmux.files import FileId
from txmux.net.channel import messages
from txmux.net.channel.descriptorstream import RETRY, close_all
from txmux.net.channel.message import Message
from txmux.processes.forking import Child, spawn
from txmux.processes.liveness import MOST_SILENT, HangDetector, activity_of_threads, is_halted
from txmux.rules.model import Files, Rules
from txmux.rules.reading.parser import read_again
from txmux.rules.reading.units import UntakenUnits
from txmux.serving.listen_addresses import ListenAddress

_PATIENCE = 10.0
"""Seconds that an answer may take, and longer if the helper works on it; the supervisor blocks meanwhile."""
_STARTING = 60.0  # the same for the first answer, since the helper has to start
_SLICE = 1.0  # seconds between two looks at what the helper does

_HELPER = "txmux.processes.opening_server"
HELPER_ENDED = "the helper that opens files has ended"


class OpenerError(MuxError):
    """The helper refuses a request, or reports errors in the rules."""


class Opener:
    """Sends requests to the helper, and blocks for the answer; `patience` is in seconds.

    A thread may read the rules by it: each answer belongs to the last request of a connection, and that one has its own.
    """

    def __init__(self, connection: socket.socket, patience: float = _PATIENCE) -> None:
        self._patience = self.limit = patience
        self._connection = connection
        self._pid = 0
        self._halted = 0
        self._folder = Path.cwd()
        self._number = 0
        self._lock = threading.Lock()
        self.process: Child | None = None

    @classmethod
    def start(cls, path: Path, pidfile: Path | None = None, text: str | None = None) -> Opener:
        """Start a helper with the present privilege; raises `OSError`. `text` has rules that are in no file."""
        child = spawn(_HELPER, str(path), *([str(pidfile)] if pidfile else []))
        opener = cls(child.connection)
        opener.process, opener._pid = child, child.pid
        opener.limit = _STARTING
        if text is not None:
            child.connection.send(text.encode(errors="surrogateescape"))
        return opener

    def open_file(self, path: Path, flags: int = os.O_RDONLY) -> int:
        """Open a file in the rules: the access log for appending, others for reading; any other is an `OSError` (``EACCES``)."""
        return self.descriptor(
            messages.OPEN,
            path=os.path.abspath(self._folder / path),  # noqa: PTH100 - links stay
            write=flags & os.O_ACCMODE != os.O_RDONLY,
        )

    def bind(self, address: ListenAddress) -> socket.socket:
        """Open the listening socket of an endpoint in the rules; for any other it is an `OSError` (``EACCES``)."""
        where = {"listener": address.listener, "text": address.text}
        descriptor = self.descriptor(messages.BIND, **where, beside=False)
        opened = socket.socket(fileno=descriptor)
        opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
        return opened

    def read_rules(self) -> Rules:
        """Make the helper read the rules file again, and return the rules.

        Until `commit`, it opens what either these or the previous rules name. An `OpenerError` has all errors in the rules, or
        says that the helper has ended.
        """
        try:
            # Over a connection of its own, since it may take a minute: other requests do not wait for it.
            reader = Opener(self.another(may_all=True), self._patience)
            reader._pid = self._pid
            try:
                descriptor = reader.descriptor(messages.READ_RULES)
            finally:
                reader.close()
            with open(descriptor, encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
                return read_again(Files.from_json(json.load(file)), UntakenUnits())
        except OSError as problem:
            raise OpenerError(problem.strerror) from problem

    def remove_socket(self, path: Path, bound: FileId) -> None:
        device, inode = bound
        self.ask(messages.REMOVE, path=str(path), device=device, inode=inode)

    def commit(self, left_out: Iterable[str] = ()) -> None:
        """Have it open from now on only what the rules name that it has read last, or what is in force for the units `left_out`."""
        with suppress(OSError):  # the next request reports it
            with suppress(OpenerError):  # it is of an older version
                for unit in left_out:
                    self.ask(messages.LEAVE_OUT, unit=unit)
            self.ask(messages.HELPER_COMMIT)

    def write_pidfile(self, remove: bool) -> None:  # noqa: FBT001 - `PidFile.by_helper`
        self.ask(messages.NAME, pid=os.getpid(), remove=remove)

    def another(self, *, may_all: bool = False) -> socket.socket:
        """Return a connection for the `Opener` of another process; with `may_all`, for more than files."""
        return socket.socket(fileno=self.descriptor(messages.ANOTHER, may_all=may_all))

    def watch_helper(self) -> None:
        """Find the helper's process by a connection that it has made itself (`another`), to see what it does."""
        if hasattr(socket, "SO_PEERCRED"):
            size = struct.calcsize("3i")
            credentials = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            self._pid = struct.unpack("3i", credentials)[0]

    def look(self) -> None:
        """Called each second: notice whether the helper is halted (SIGSTOP); it waits for requests at other times."""
        self._halted = self._halted + 1 if self._pid and is_halted(self._pid) else 0

    def halted(self) -> int:
        return self._pid if self._halted >= MOST_SILENT else 0

    def has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self._connection, 0)  # its end is reported in any case
        return bool(poll.poll(0))

    def close(self, *, wait: bool = True) -> None:
        """Close the connection to the helper; `wait` for its end if this is the last one."""
        self._connection.close()
        if self.process is not None and wait:
            self.process.wait()

    def descriptor(self, message: Message, **values: Any) -> int:
        until = time.monotonic() + self._patience
        while True:
            try:
                (descriptor,) = self.ask(message, **values)
                break
            except OSError as problem:
                if problem.errno != errno.ETOOMANYREFS or time.monotonic() > until:
                    raise
            time.sleep(RETRY)
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - its name does not take it
        return descriptor

    def ask(self, message: Message, **values: Any) -> list[int]:
        with self._lock:
            answer, received = self._answer(message, values)
        if "refused" in answer:
            raise OpenerError(answer["refused"])
        if "errno" in answer:
            raise OSError(answer["errno"], answer["error"])
        return received

    def _answer(
        self, message: Message, values: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[int]]:
        self._number += 1
        try:
            self._connection.send(
                json.dumps({"kind": message.kind, **values, "number": self._number}).encode()
            )
            answer, received = self._receive()
            while answer.get("number") != self._number:  # it belongs to a request that timed out
                close_all(received)
                answer, received = self._receive()
            self.limit = self._patience  # the helper has started
        except (EOFError, ConnectionError):
            raise OSError(errno.EPIPE, f"{HELPER_ENDED}: restart the service") from None
        except OSError as problem:
            raise OSError(
                errno.EPIPE, f"the helper that opens files cannot be reached: {problem}"
            ) from problem
        return answer, received

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        silence, until = HangDetector(), time.monotonic() + self.limit
        while True:
            self._connection.settimeout(min(_SLICE, self.limit))
            try:
                packet, descriptors, _, _ = socket.recv_fds(self._connection, messages.PACKET, 1)
                break
            except TimeoutError:
                activity = activity_of_threads(self._pid) if self._pid else None
                silence.observe(activity, has_turned=False)
                is_working = activity is not None and silence.waited < self.limit
                if time.monotonic() >= until and (not is_working or silence.why(at_work=True)):
                    raise
        if not packet:
            raise EOFError
        return json.loads(packet), list(descriptors)


def opener_of(
    open_itself: Callable[[ListenAddress], socket.socket], opener: Opener
) -> Callable[[ListenAddress], socket.socket]:
    def open_address(address: ListenAddress) -> socket.socket:
        try:
            return open_itself(address)
        except PermissionError:
            return opener.bind(address)

    return open_address
