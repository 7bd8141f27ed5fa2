"""The listening sockets of a service: each is opened once, and stays open while it is in the rules."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import attrs
from twisted.logger import Logger

from txmux.classes import define
from txmux.errors import ListenError, cause_of
from txmux.files import FileId, file_id, remove_socket
from txmux.net.addresses import text_of
from txmux.net.sockets.plainsocket import is_shut, listen_again
from txmux.net.sockets.transport import address_of
from txmux.rules.model import Listener
from txmux.rules.problems import Problem
from txmux.rules.reading.endpointstrings import ports_text
from txmux.serving.endpoints import listen_error, why_no_socket
from txmux.serving.listen_addresses import (
    ListenAddress,
    listen_addresses,
    open_address,
)

_log = Logger()


class ListeningSockets:
    """Keeps sockets open over reloads and restarts of workers.

    The kernel's queue of waiting clients belongs to the socket object. Queued clients are kept while some process has the object open.

    Attributes:
        addresses: The sockets' addresses for the log and the operator; kept when all are closed.
        unused: Sockets that the rules no longer have; `close_unused` closes them, but those of systemd.
        passed: The keys of sockets that systemd has opened.
        files: Those of UNIX sockets, by key.
        on_replaced: Called when `revive` has replaced sockets.
        awaited: Where units would listen if they could.
        on_available: Called when one of these addresses is free.
    """

    def __init__(self, reactor: Any) -> None:
        self.open_address: Callable[[ListenAddress], socket.socket] = lambda address: open_address(
            address, reactor
        )
        self.addresses: dict[str, str] = {}
        self.unused: dict[str, socket.socket] = {}
        self._listens_at: dict[str, ListenAddress] = {}
        self._unreached: dict[str, str] = {}  # why clients reach no socket there, by key
        self.on_replaced: Callable[[], object] = lambda: None
        self.awaited: list[ListenAddress] = []
        self.on_available: Callable[[], object] = lambda: None
        self.passed: Collection[str] = ()
        # Of the same service: sockets for clients know those of its admin.
        self.others: ListeningSockets | None = None
        self._sockets: dict[str, socket.socket] = {}
        self._adopted: dict[str, socket.socket] = {}
        self.files: dict[str, FileId] = {}

    def adopt(self, key: str, opened: socket.socket, file: FileId | None = None) -> None:
        """Add a socket that another process has opened; it is unused if the next `commit` does not need it."""
        opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
        self._adopted[key] = opened
        if key not in self.files:
            self.note_file(key, file)

    def note_file(self, key: str, file: FileId | None = None) -> None:
        """Remember which file a UNIX socket has: by default the one at its path now."""
        if key.startswith("unix:"):
            self.files[key] = file or file_id(_path_of(key))

    def give_up(self, key: str) -> None:
        opened = self._adopted.pop(key, None)
        if opened is not None:
            opened.close()

    def shut_unneeded(self, listeners: Iterable[Listener]) -> None:
        """Stop listening on adopted sockets that these do not have: others may overlap them. No other process serves there."""
        needed = {address.key for listener in listeners for address in listen_addresses(listener)}
        for key in self.ended_by_removal(self._adopted.keys() - needed):
            _shut_down(self._adopted[key])

    def sockets(self) -> Mapping[str, socket.socket]:
        return dict(self._sockets)

    def prepare(self, listeners: Iterable[Listener]) -> PreparedSockets:
        """Open the sockets of plain addresses that are not open yet.

        They listen from the commit on: if there is none, no client has come in vain. If some cannot be opened, each is a line of the
        `ListenError`, or all ports of a line with the same error. No new one is left open.
        """
        addresses = [address for listener in listeners for address in listen_addresses(listener)]
        return self.prepare_addresses(address for address in addresses if address.is_plain)

    def prepare_addresses(self, addresses: Iterable[ListenAddress]) -> PreparedSockets:
        prepared = PreparedSockets(self)
        added = [(address, prepared.add(address)) for address in addresses]
        failures = [(address, failure) for address, failure in added if failure is not None]
        if failures:
            prepared.abandon()
            raise _error_of(failures) from failures[0][1]
        return prepared

    def listen(self) -> None:
        """Do what a `commit` has left undone; see `listen_at`."""
        self.listen_at(self._listens_at.values(), self._sockets)

    def listen_at(
        self, addresses: Iterable[ListenAddress], sockets: Mapping[str, socket.socket]
    ) -> None:
        """Listen on those that are only bound; it is a `ListenError` if another program listens there by now."""
        failures = []
        for address in addresses:
            opened = sockets[address.key]
            if address.kind in {"tcp", "unix"} and is_shut(address.key, opened):
                try:
                    opened.listen(address.backlog)
                except OSError as problem:
                    failures.append((address, self.why_not(address, problem)))
        if failures:
            raise _error_of(failures) from failures[0][1]

    def unavailable(self, listeners: Iterable[Listener]) -> Iterator[Problem]:
        """Yield why some of these listeners would get no socket; `look_at_awaited` tries again."""
        for listener in listeners:
            prepared = PreparedSockets(self)
            for address in listen_addresses(listener):
                failure = prepared.add(address) if address.is_plain else None
                if failure is not None:
                    self.awaited.append(address)
                    why = f"cannot listen at {address.line}: {why_no_socket(address, failure)}"
                    yield listener.section.problem(why, "endpoint")
            prepared.abandon()

    def look_at_awaited(self) -> None:
        for address in self.awaited:
            prepared = PreparedSockets(self)
            if prepared.add(address) is None:
                prepared.abandon()
                self.on_available()
                break

    def get(self, key: str) -> socket.socket | None:
        return self._sockets.get(key) or self._adopted.get(key)

    def why_not(self, address: ListenAddress, problem: Exception) -> Exception:
        """Explain an address conflict with a socket of this service."""
        if getattr(problem, "errno", None) != errno.EADDRINUSE:
            return problem
        port = f":{address.key.rpartition(':')[2]}"
        others = {} if self.others is None else self.others._sockets
        overlapping = [
            key
            for key in (*self._sockets, *self._adopted, *others)
            if key.endswith(port) and key.startswith("tcp:")
        ]
        if address.key in self.passed:
            why = "systemd has it, and passes it when the service starts: restart the service"
        elif address.other_key in self.passed:
            why = (
                "systemd has passed a socket there: change 'mptcp', or SocketProtocol= of its unit"
            )
        elif self.get(address.other_key) is not None:
            why = "'mptcp' cannot change while the service runs: restart it for that"
        elif address.kind != "tcp" or not overlapping:
            return problem
        elif overlapping[0] in self.passed:
            why = (
                f"systemd has passed a socket at {self._place(overlapping[0])}, which overlaps it: write that address, or change "
                "ListenStream= of its unit"
            )
        else:
            why = (
                f"{self._place(overlapping[0])}, where the service listens now, overlaps it, and the system allows no two "
                "such sockets: restart the service, or remove the old endpoint in one reload "
                "and add the new one in the next; clients in between are refused"
            )
        return OSError(errno.EADDRINUSE, why)

    def _place(self, key: str) -> str:
        address = self._listens_at.get(key)
        return key[4:] if address is None else address.with_ports(key[4:])

    def ended_by_removal(self, keys: Iterable[str]) -> list[str]:
        """Return which of these sockets are shut down when they are removed, for all processes: those of streams, if none is systemd's."""
        return [key for key in keys if key.startswith(("tcp:", "unix:")) and key not in self.passed]

    def remove_files(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._remove_file(key)

    def _relisten(self, key: str) -> bool:
        """Listen again on a socket that was shut down; a UNIX socket is replaced, since it stays shut."""
        address, opened = self._listens_at[key], self._sockets[key]
        try:
            if key.startswith("unix:"):
                self._sockets[key] = self.open_address(address)
                self.note_file(key)
                opened.close()
            listen_again(self._sockets[key], address.backlog)
        except OSError as problem:
            why = f"it cannot listen at {self.addresses[key]}: {problem.strerror}"
            if self._is_new(key, why):
                _log.error("{problem}; trying again", problem=listen_error(address, problem))
            return False
        self._unreached.pop(key, None)
        return True

    def _is_new(self, key: str, why: str) -> bool:
        """Remember why clients reach no socket; return whether that was not known."""
        before, self._unreached[key] = self._unreached.get(key), why
        return before != why

    def unreached(self) -> list[str]:
        """Return why clients do not reach listeners, a line each, as ``/readyz`` has them."""
        return [
            f"{self._listens_at[key].section}: {why}"
            for key, why in self._unreached.items()
            if key in self._sockets
        ]

    def open(self, listeners: Iterable[Listener]) -> None:
        self.prepare(listeners).commit()
        self.close_unused()

    def revive(self) -> list[str]:
        """Listen again on sockets that a process of the service has shut down, and on UNIX sockets whose files were removed.

        A compromised worker can shut one down. A file that is another program's by now stays. Return the keys of those that had to be
        replaced.
        """
        listening = self.sockets()
        gone = [key for key in listening if key.startswith("unix:") and self._is_gone(key)]
        shut = [
            key for key, opened in listening.items() if key not in gone and is_shut(key, opened)
        ]
        # If that fails, another process listens there, maybe the one that has shut it down.
        revived = [key for key in (*gone, *shut) if self._relisten(key)]
        for key in revived:
            why = (
                "its file had been removed"
                if key in gone
                else "a process of txmux had shut the socket down; "
                "if that happens again, restart the service, and look for what has taken over a worker"
            )
            section = self._listens_at[key].section
            _log.error(
                "listening on {address} for {section} again: {why}",
                address=self.addresses[key],
                section=section,
                why=why,
            )
        replaced = [key for key in revived if key.startswith("unix:")]
        if replaced:
            self.on_replaced()
        return replaced

    def _is_gone(self, key: str) -> bool:
        """Return whether nothing is at the path of a UNIX socket; log once if it is a file of another program."""
        path, own = _path_of(key), self.files.get(key, (0, 0))
        try:
            status = path.lstat()
        except FileNotFoundError:
            return True
        except OSError:  # this process may not see it
            return False
        covered = f"another program has put its own file at {path}; move that file away"
        if not own[1] or own == (status.st_dev, status.st_ino):
            if key in self._unreached and not is_shut(key, self._sockets[key]):
                del self._unreached[key]
        elif self._is_new(key, covered):
            _log.error(
                "another program has put its own file at {path}, so that no client reaches {section} there; "
                "move that file away, and the socket is made again",
                path=path,
                section=self._listens_at[key].section,
            )
        return False

    def close_unused(self, *, keep_files: bool = False) -> None:
        """Close the unused sockets; first close the ports that accept from them.

        Unless another process serves there (`keep_files`), none that still has one open accepts from it, either: otherwise the kernel
        would queue clients for a process that an upgrade has replaced, or for one that hangs.
        """
        shut = () if keep_files else self.ended_by_removal(self.unused)
        for key, opened in self.unused.items():
            # systemd has its own in any case, and the rules may have them again.
            if key in self.passed or key.startswith("systemd:"):
                self._adopted[key] = opened
                continue
            if key in shut:
                _shut_down(opened)
            self._close(key, opened, keep_file=keep_files)
        self.unused.clear()

    def close(self, *, keep_files: bool = False) -> None:
        """Close all sockets; `keep_files` of UNIX sockets that another process has open, too."""
        for sockets in (self._sockets, self._adopted, self.unused):
            for key, opened in sockets.items():
                self._close(key, opened, keep_file=keep_files or sockets is self.unused)
            sockets.clear()

    def _close(self, key: str, opened: socket.socket, *, keep_file: bool) -> None:
        if not keep_file:
            self._remove_file(key)
        opened.close()

    def _remove_file(self, key: str) -> None:
        try:
            if key in self.files:
                remove_socket(_path_of(key), self.files.pop(key))
        except OSError as problem:
            # The folder may belong to root, whose privileges were dropped for `user`.
            _log.warn("{path} cannot be removed: {why}", path=_path_of(key), why=cause_of(problem))


@define
class PreparedSockets:
    """The sockets of prepared rules, for `commit` or `abandon`.

    Attributes:
        sockets: By the keys of their addresses; the store owns them.
        opened: The addresses that were not open before.
    """

    _store: ListeningSockets
    sockets: dict[str, socket.socket] = attrs.field(factory=dict, init=False)
    opened: list[ListenAddress] = attrs.field(factory=list, init=False)
    _addresses: list[ListenAddress] = attrs.field(factory=list, init=False)

    def add(self, address: ListenAddress) -> Exception | None:
        """Open the socket of an address; return the error if that fails."""
        store = self._store
        try:
            if address.key in self.sockets:
                return OSError(errno.EADDRINUSE, "the same address is named twice: remove one")
            existing = store.get(address.key)
            self.sockets[address.key] = existing or store.open_address(address)
            if existing is None:
                store.note_file(address.key)
        except (OSError, LookupError) as problem:
            return store.why_not(address, problem)
        self._addresses.append(address)
        if address.key not in store._sockets:
            self.opened.append(address)
        return None

    def listen(self) -> None:
        """Listen where these are only bound: what can still fail of `commit`."""
        self._store.listen_at(self.opened, self.sockets)

    def commit(self, *, listening: bool = True) -> None:
        """Make these the sockets of the service, and all others unused; without `listening`, call `ListeningSockets.listen`, too."""
        if listening:
            self.listen()
        store = self._store
        addresses, before, sockets = store.addresses, store._listens_at, store._sockets
        shown_at = {key: shown(key, opened) for key, opened in self.sockets.items()}
        # First, so that no error below leaves the sockets of two versions of the rules.
        had = {**store._adopted, **sockets}
        store._sockets, store._adopted, store.addresses = self.sockets, {}, shown_at
        store._listens_at = {address.key: address for address in self._addresses}
        store.unused |= {key: opened for key, opened in had.items() if key not in self.sockets}
        for address in self.opened:
            store._unreached.pop(address.key, None)
        for section, place in _places(self.opened, store.addresses):
            _log.info("listening on {address} for {section}", address=place, section=section)
        gone = [before[key] for key in sockets if key not in self.sockets]
        for section, place in _places(gone, addresses):
            _log.info(
                "no longer listening on {address} for {section}", address=place, section=section
            )
        for address in self._addresses:
            if address.key in sockets and address.kind not in {"systemd", "udp"}:
                # The backlog may have changed. For errors see `listen_again`.
                with suppress(OSError):
                    listen_again(self.sockets[address.key], address.backlog)

    def abandon(self) -> None:
        for address in self.opened:
            if address.key not in self._store._adopted and address.key in self.sockets:
                self._store._close(address.key, self.sockets[address.key], keep_file=False)


def _error_of(failures: Sequence[tuple[ListenAddress, Exception]]) -> ListenError:
    alike: dict[tuple[str, str], list[tuple[ListenAddress, Exception]]] = {}
    for address, failure in failures:
        of = f"{address.section} {address.line}" if address.ports else address.key
        alike.setdefault((of, str(failure)), []).append((address, failure))
    lines = [
        listen_error(*some[0], [each.port for each, _ in some if each.ports])
        for some in alike.values()
    ]
    return ListenError("\n".join(map(str, lines)))


def _places(
    listening: Iterable[ListenAddress], addresses: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield the sections and addresses for the log, one for all ports of a line."""
    for key, group in groupby(listening, lambda one: one.ports and (one.section, one.line)):
        some = [*group]
        for one in some[:1] if key else some:
            place = addresses[one.key]
            if key:
                ports = ports_text(each.port for each in some).partition(" ")[2]
                place = f"{place.rpartition(':')[0]}:{ports}"
            yield one.section, place


def _shut_down(opened: socket.socket) -> None:
    """Stop listening for all processes that have the socket open."""
    with suppress(OSError):  # it does not listen
        opened.shutdown(socket.SHUT_RD)
        while opened.family == socket.AF_UNIX:  # the queue stays
            opened.accept()[0].close()


def _path_of(key: str) -> Path:
    return Path(key.removeprefix("unix:"))


def shown(key: str, opened: socket.socket) -> str:
    """Return the address of a socket for the log."""
    if opened.family == socket.AF_UNIX and key.startswith("unix:"):
        return key
    name = opened.getsockname()
    text = text_of(address_of(opened.family, name if opened.family == socket.AF_UNIX else name[:2]))
    return f"udp:{text}" if opened.type == socket.SOCK_DGRAM else text
