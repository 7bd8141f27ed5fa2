"""The side that opens the files and sockets of the rules: the privileged helper, or the supervisor for its workers.

See `txmux.processes.opener` for the requests.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import attrs

from txmux.admin.listen_addresses import admin_addresses, automatic_addresses, make_token
from txmux.classes import define
from txmux.errors import MuxError, cause_of
from txmux.files import (
    FileId,
    file_id,
    on_disk,
    open_log,
    open_safely,
    remove_own_socket,
    require_proc,
    within_patience,
)
from txmux.net.channel import messages
from txmux.net.channel.descriptorstream import close_all
from txmux.net.channel.message import Message
from txmux.processes.account import account_of
from txmux.processes.forking import ignore_signals, name_process
from txmux.processes.supervisor.pidfile import remove_pid, write_pid
from txmux.rules.model import Files, Rules
from txmux.rules.model.rules import OPTIONS
from txmux.rules.named_files import forbidden, is_key_file, paths_by_opener, unanswered
from txmux.rules.problems import Problem
from txmux.rules.reading.parser import load_within_patience, rules_of_lost, without_unservable
from txmux.rules.reading.units import UntakenUnits
from txmux.rules.reading.values import Opens
from txmux.serving.listen_addresses import ListenAddress, listen_addresses, open_address
from txmux.telemetry import sharedmemory
from txmux.wire.jsontext import parse_json

_MOST_IN_A_ROW = 8
"""Units of which each keeps the next one out: more could take this long."""

_Taken = tuple[Files, Mapping[str, Sequence[tuple[int, str]]]]
"""Rules' files, and where the units in them begin."""


_GONE = (OSError, ValueError, AttributeError, RecursionError, TypeError, LookupError)
"""Raised when the other end has closed, or sends an invalid request."""
_MOST_TEXT = 65536
"""The most bytes of rules from the options of a command."""


@define
class AllowedPaths:
    """The files and addresses in the rules.

    Attributes:
        opens: The files, by which process opens them.
        addresses: By listener and text.
        token: This file may be created.
    """

    opens: Mapping[Opens, set[str]]
    addresses: dict[tuple[str, str], ListenAddress]
    owner: tuple[int, int] | None
    token: str | None

    @classmethod
    def of(cls, rules: Rules, *others: Rules) -> AllowedPaths:
        """Return what rules name, and what the units name that others have."""
        token, account = rules.settings.admin_token, account_of(rules)
        paths = [paths_by_opener(one) for one in (rules, *others)]
        return cls(
            {opens: set[str]().union(*(its[opens] for its in paths)) for opens in paths[0]},
            {
                (address.listener, address.text): address
                for one in (*others, rules)
                for address in _addresses(one)
            },
            account.owner if account else None,
            os.path.abspath(token) if token else None,  # noqa: PTH100 - links stay
        )

    def may_be_read(self, path: str, *, may_all: bool) -> bool:
        """Return whether a path is exactly one of the rules, and with `may_all`, or that of a key in one of their folders."""
        if path in self.opens["worker"] or not may_all:
            return path in self.opens["worker"]
        folder, _, name = path.rpartition("/")
        return any(path in self.opens[one] for one in ("sent", "sent-folder", "supervisor")) or (
            folder in self.opens["sent-folder"] and is_key_file(name)
        )


def _addresses(rules: Rules) -> Iterator[ListenAddress]:
    for listener in rules.listeners:
        yield from listen_addresses(listener)
    yield from (address for _, address in admin_addresses(rules, lambda _: None))
    if "auto" in rules.settings.admin:
        yield from automatic_addresses(rules.path)


@define(eq=False, slots=False)
class OpeningServer:
    """Answers requests to open files and sockets; `data` is the text of rules that are in no file."""

    _path: Path
    _pidfile: Path | None = None
    _data: bytes | None = None
    _is_privileged: bool = attrs.field(default=True, kw_only=True)
    _named: list[AllowedPaths] = attrs.field(factory=list, init=False)
    _sockets: set[str] = attrs.field(factory=set, init=False)
    _bound: dict[str, FileId] = attrs.field(factory=dict, init=False)
    _files: Files = attrs.field(factory=Files, init=False)
    _in_force: _Taken = attrs.field(default=(Files(), {}), init=False)
    _next: _Taken = attrs.field(default=(Files(), {}), init=False)
    _latest: Rules | None = attrs.field(default=None, init=False)
    _left_out: set[str] = attrs.field(factory=set, init=False)
    _poll: select.poll = attrs.field(factory=select.poll, init=False)
    _connections: dict[int, tuple[socket.socket, bool]] = attrs.field(factory=dict, init=False)
    _reading: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def serve(self, connection: socket.socket) -> None:
        """Answer until the last connection is closed; the first one is the supervisor's."""
        self._add(connection, may_all=True)
        with suppress(MuxError, OSError):  # another process reports it to the operator
            self._read()
            self._in_force = self._next
        woken, wake = socket.socketpair()
        self._poll.register(woken, select.POLLIN)
        have_read: deque[tuple[socket.socket, bool]] = deque()

        def read(client: socket.socket) -> None:
            goes_on = False
            try:
                goes_on = self.serve_one(client, may_all=True)
            finally:
                have_read.append((client, goes_on))
                wake.send(b"\0")

        while self._connections:
            for descriptor, _ in self._poll.poll():
                if descriptor == woken.fileno():
                    woken.recv(1)
                    client, goes_on = have_read.popleft()
                    self._poll.register(client, select.POLLIN)
                else:
                    client, may_all = self._connections[descriptor]
                    if may_all and _asks_to_read(client):
                        # It may take a minute on a small machine, in which workers open files.
                        self._poll.unregister(client)
                        threading.Thread(target=read, args=[client]).start()
                        continue
                    goes_on = self.serve_one(client, may_all=may_all)
                if not goes_on:
                    self._poll.unregister(client)
                    del self._connections[client.fileno()]
                    client.close()

    def _add(self, connection: socket.socket, *, may_all: bool) -> None:
        self._connections[connection.fileno()] = connection, may_all
        self._poll.register(connection, select.POLLIN)

    def serve_one(self, connection: socket.socket, *, may_all: bool = False) -> bool:
        """Answer one request; return whether there may be more. Without `may_all`, only the files of workers are opened."""
        try:
            packet, received, _, _ = socket.recv_fds(connection, messages.PACKET, 1)
            close_all(received)  # no request has any
            if not packet:
                return False
            question = parse_json(packet)
            number = question.pop("number", None)
            answer, descriptors = self.answer(question, may_all=may_all)
            try:
                connection.setblocking(False)  # noqa: FBT003 - the socket module's signature
                _send(connection, {**answer, "number": number}, descriptors)
            finally:
                close_all(descriptors)
        except _GONE:
            return False
        return True

    def answer(
        self, question: dict[str, Any], *, may_all: bool
    ) -> tuple[dict[str, Any], list[int]]:
        """Return the answer to a request of an `Opener`, and the descriptor that goes with it."""
        does: dict[Message, Callable[..., list[int] | None]] = {
            messages.OPEN: partial(self._open, may_all),
            messages.BIND: self._bind,
            messages.READ_RULES: self._rules,
            messages.LEAVE_OUT: self._leave_out,
            messages.HELPER_COMMIT: self.commit,
            messages.ANOTHER: self._another,
            messages.NAME: self._name,
            messages.REMOVE: self._remove,
        }
        kind = question.pop("kind", "")
        allowed = does if may_all else [messages.OPEN]
        message = next((candidate for candidate in allowed if candidate.kind == kind), None)
        if message is None or question.keys() - message.fields.keys():
            return {"refused": "that is not what this helper does"}, []
        try:
            return {}, does[message](**message.read(question, 0)) or []
        except OSError as problem:
            return {"errno": problem.errno, "error": problem.strerror or str(problem)}, []
        except MuxError as problem:
            return {"refused": str(problem)[: messages.PACKET // 2]}, []
        except Exception as problem:  # noqa: BLE001 - there is only one helper, which cannot be replaced
            why = cause_of(problem)[: messages.PACKET // 2]
            return {"refused": f"the helper that opens files could not do it: {why}"}, []

    def _open(self, may_all: bool, path: str, *, write: bool) -> list[int]:  # noqa: FBT001 - bound by position
        if write:
            owners = [named.owner for named in self._named if path in named.opens["worker-log"]]
            if not owners:
                raise _not_named(path)
            return [within_patience(partial(open_log, Path(path), owners[0], alone=True))]
        if not any(named.may_be_read(path, may_all=may_all) for named in self._named):
            raise _not_named(path)
        if any(path == named.token for named in self._named):
            make_token(Path(path))
        opened = within_patience(self._open_on_disk, Path(path))
        is_folder = stat.S_ISDIR(os.fstat(opened).st_mode)
        if is_folder and not any(path in named.opens["sent-folder"] for named in self._named):
            os.close(opened)
            if any(path in named.opens["worker"] | named.opens["sent"] for named in self._named):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            raise _not_named(path)
        return [opened]

    def _open_on_disk(self, path: Path) -> int:
        with on_disk(path):
            if self._is_privileged:
                return open_safely(path)[0]
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)

    def _bind(self, listener: str, text: str, **_: object) -> list[int]:
        for named in reversed(self._named):
            address = named.addresses.get((listener, text))
            if address is not None and address.kind in {"tcp", "udp", "unix"}:
                opened = open_address(address, None)
                path = address.key.removeprefix("unix:")
                self._bound[path] = file_id(Path(path))
                return [opened.detach()]
        raise _not_named(text)

    def _rules(self) -> list[int]:
        with self._reading:
            self._read()
            return [_written(self._files.as_json())]

    def _remove(self, path: str, *, device: int, inode: int) -> None:
        if path not in self._sockets:
            raise _not_named(path)
        # Who has not opened it may be unable to see it.
        bound = (device, inode) if inode else self._bound.get(path, (0, 0))
        remove_own_socket(Path(path), bound)

    def _read(self) -> None:
        rules = load_within_patience(
            self._path, data=self._data, are_pem_files_there=False, in_force=self._files
        )
        self._latest, self._files = rules, rules.files
        self._left_out.clear()
        self._take(rules)

    def _take(self, rules: Rules) -> None:
        """Decide which units are taken as the supervisor does, which may leave out more."""
        files, before = self._in_force
        units = UntakenUnits(files)
        for path, begun in (*before.items(), *rules.units.items()):  # one may be gone
            units.problems.update(
                (name, (Problem(path, line, "", "", "it cannot be served"),))
                for line, name in begun
                if name in self._left_out
            )
        found = within_patience(partial(without_unservable, rules, units, _forbidden))
        # It serves these when it cannot open a port of those that keep them out.
        lost = within_patience(lambda: [*islice(rules_of_lost(found, _forbidden), _MOST_IN_A_ROW)])
        self._next = found.files, found.units
        self.prepare(found, *lost)

    def _leave_out(self, unit: str) -> None:
        self._left_out.add(unit)

    def prepare(self, rules: Rules, *others: Rules) -> None:
        """Allow what these rules name, too; after `commit`, nothing else."""
        self._named = [*self._named[:1], AllowedPaths.of(rules, *others)]
        for address in self._named[-1].addresses.values():
            if address.kind == "unix":
                self._sockets.add(address.key.removeprefix("unix:"))

    def commit(self) -> None:
        if self._left_out and self._latest is not None:
            with self._reading:
                # For what is left out, the supervisor tries whether its ports are free by now.
                awaited = self._named[-1].addresses
                self._take(self._latest)
                addresses = self._named[-1].addresses
                addresses |= {**awaited, **addresses}
        del self._named[:-1]
        self._in_force = self._next

    def _name(self, pid: int, *, remove: bool) -> None:
        owner = self._named[-1].owner if self._named else None
        if not self._is_privileged:
            owner = os.geteuid(), os.getegid()
        require_proc()
        # Readers of the file send signals to that process, maybe as root.
        if (
            self._pidfile is None
            or owner is None
            or Path(f"/proc/{pid:d}").stat().st_uid != owner[0]
        ):
            raise OSError(errno.EACCES, "Permission denied")
        (remove_pid if remove else write_pid)(self._pidfile, pid)

    def _another(self, *, may_all: bool) -> list[int]:
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._add(own, may_all=may_all)
        return [other.detach()]


def _forbidden(rules: Rules) -> list[Problem]:
    try:
        found = within_patience(lambda: [*forbidden(rules)])
    except OSError as late:
        found = unanswered(rules, late)
        if not found:
            raise
    return [*map(rules.placed, found)]


def _asks_to_read(connection: socket.socket) -> bool:
    with suppress(*_GONE):
        packet = connection.recv(messages.PACKET, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return bool(parse_json(packet)["kind"] == messages.READ_RULES.kind)
    return False


def _send(connection: socket.socket, answer: dict[str, Any], descriptors: Sequence[int]) -> None:
    try:
        socket.send_fds(connection, [json.dumps(answer).encode()], descriptors)
    except OSError as problem:
        if problem.errno != errno.ETOOMANYREFS:
            raise
        # The opener tries again.
        again = {"number": answer["number"], "errno": problem.errno, "error": problem.strerror}
        connection.send(json.dumps(again).encode())


def _written(value: object) -> int:
    # In memory, since a disk may be full.
    with open(sharedmemory.make("txmux rules"), "r+", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
        json.dump(value, file)
        file.flush()
        file.seek(0)
        return os.dup(file.fileno())


def _not_named(what: str) -> OSError:
    return OSError(errno.EACCES, f"Permission denied, and the rules do not name {what!r}")


def main(connection: socket.socket, path: str, *pidfile: str) -> None:
    # The helper ends with its last connection, not by the signal that stops the service.
    ignore_signals(signal.SIGTERM)
    name_process("helper")
    data = connection.recv(_MOST_TEXT) if path == OPTIONS else None
    server = OpeningServer(Path(path), Path(*pidfile) if pidfile else None, data)
    server.serve(connection)
