"""The listening sockets of a service: each is opened once, and stays open while it is in the rules."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs
from twisted.logger import Logger

from txmux.classes import define
from txmux.errors import ListenError, cause_of
from txmux.files import FileId, file_id, remove_socket
from txmux.net.addresses import text_of
from txmux.net.sockets.plainsocket import host_of, is_shut, listen_again
from txmux.net.sockets.transport import address_of
from txmux.rules.lint.privileges import CANNOT_LISTEN
from txmux.rules.model import Listener
from txmux.rules.problems import Problem
from txmux.rules.reading.endpointstrings import ports_text
from txmux.serving.endpoints import listen_error, why_no_socket
from txmux.serving.listen_addresses import (
    ListenAddress,
    has_lost_interface,
    listen_addresses,
    listen_lines,
    open_address,
    place_of,
)

_State: TypeAlias = Literal["opened", "adopted", "in force", "unused", "closed"]

_OPEN: Sequence[_State] = ("in force", "adopted")

_log = Logger()


@define(eq=False)
class OpenSocket:
    """A listening socket, from its opening to its end.

    Attributes:
        state: It is *opened* for rules that are not in force yet, or *adopted* from another process or from systemd; then *in force*;
            then *unused*, which `ListeningSockets.close_unused` closes unless it is systemd's, or *closed* with the service.
        file: That of a UNIX socket.
        address: What the rules in force say of it.
        shown: Its address for the log and the operator.
        unreached: Why no client reaches it.
    """

    key: str
    socket: socket.socket
    state: _State
    file: FileId | None = None
    address: ListenAddress | None = None
    shown: str = ""
    unreached: str = ""

    def note_file(self) -> None:
        if self.key.startswith("unix:"):
            self.file = file_id(_path_of(self.key))

    def is_newly_unreached(self, why: str) -> bool:
        """Remember why no client reaches it; return whether that was not known."""
        before, self.unreached = self.unreached, why
        return before != why

    @property
    def listens_at(self) -> ListenAddress:
        assert self.address is not None  # noqa: S101 - it is in force
        return self.address


class ListeningSockets:
    """Keeps sockets open over reloads and restarts of workers.

    The kernel's queue of waiting clients belongs to the socket object. Queued clients are kept while some process has the object open.

    Args:
        replaced: Called when `revive` has replaced sockets.
        available: Called when an awaited address is free.
        others: More of the same service: errors of each name what overlaps in the other.

    Attributes:
        passed: The keys of sockets that systemd has opened.
        awaited: Where units would listen if they could.
    """

    def __init__(
        self,
        reactor: Any,
        replaced: Callable[[], object] = lambda: None,
        available: Callable[[], object] = lambda: None,
        others: ListeningSockets | None = None,
    ) -> None:
        self.open_address: Callable[[ListenAddress], socket.socket] = lambda address: open_address(
            address, reactor
        )
        self._all: dict[str, OpenSocket] = {}
        self.replaced, self._available = replaced, available
        self.awaited: list[ListenAddress] = []
        self.passed: Collection[str] = ()
        self._others = others
        if others is not None:
            others._others = self

    def _in(self, *states: _State) -> list[OpenSocket]:
        return [one for one in self._all.values() if one.state in states]

    def adopt(self, key: str, opened: socket.socket, file: FileId | None = None) -> None:
        """Add a socket that another process has opened; it is unused if the next `commit` does not need it."""
        opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
        known = self._all.get(key)
        its = self._all[key] = OpenSocket(key, opened, "adopted", (known and known.file) or file)
        if its.file is None:
            its.note_file()

    def give_up(self, key: str) -> None:
        its = self._all.get(key)
        if its is not None and its.state == "adopted":
            its.socket.close()
            del self._all[key]

    def shut_unneeded(self, listeners: Iterable[Listener]) -> None:
        """Stop listening on adopted sockets that these do not have: others may overlap them. No other process serves there."""
        needed = {address.key for listener in listeners for address in listen_addresses(listener)}
        adopted = {its.key for its in self._in("adopted")}
        for key in self.ended_by_removal(adopted - needed):
            _shut_down(self._all[key].socket)

    def sockets(self) -> Mapping[str, socket.socket]:
        return {its.key: its.socket for its in self._in("in force")}

    def drain_unused(self) -> None:
        """Keep unused UDP sockets: such a port stays bound as long as a worker has flows there."""
        for its in self._datagrams("unused"):
            its.state = "adopted"

    def draining(self) -> Mapping[str, socket.socket]:
        return {its.key: its.socket for its in self._datagrams("adopted")}

    def _datagrams(self, state: _State) -> Iterator[OpenSocket]:
        return (
            its
            for its in self._in(state)
            if its.key.startswith("udp:") and its.key not in self.passed
        )

    @property
    def unused(self) -> dict[str, socket.socket]:
        return {its.key: its.socket for its in self._in("unused")}

    @property
    def files(self) -> dict[str, FileId]:
        return {key: its.file for key, its in self._all.items() if its.file is not None}

    @property
    def addresses(self) -> dict[str, str]:
        return {its.key: its.shown for its in self._in("in force", "closed")}

    def prepare(self, listeners: Iterable[Listener]) -> PreparedSockets:
        """Open the sockets that are not open yet.

        They listen from the commit on: if there is none, no client has come in vain. If some cannot be opened, each is a line of the
        `ListenError`, or all ports of a line with the same error. No new one is left open.
        """
        addresses = [address for listener in listeners for address in listen_addresses(listener)]
        return self.prepare_addresses(address for address in addresses if address.is_socket)

    def prepare_addresses(
        self, addresses: Iterable[ListenAddress], beside: Iterable[Listener] | None = None
    ) -> PreparedSockets:
        """Open sockets as `prepare` does; if others keep only the listeners `beside`, those in the way of which the rest is are late."""
        prepared = PreparedSockets(self)
        added = [(address, prepared.add(address)) for address in addresses]
        if beside is not None and self._others is not None:
            kept = {address.key for listener in beside for address in listen_addresses(listener)}
            going = {place_of(key) for key in self._others.sockets().keys() - kept}
            taken = [one for one, why in added if getattr(why, "errno", None) == errno.EADDRINUSE]
            prepared.late += [one for one in taken if place_of(one.key) in going]
        if failures := _alike(one for one in added if one[0] not in prepared.late):
            prepared.abandon()
            raise _error_of(failures) from failures[0][1]
        return prepared

    def listen(self) -> None:
        self.listen_at((its.listens_at for its in self._in("in force")), self.sockets())

    def listen_at(
        self, addresses: Iterable[ListenAddress], sockets: Mapping[str, socket.socket]
    ) -> None:
        """Listen on those that are only bound; it is a `ListenError` if another program listens there by now."""
        tried: list[tuple[ListenAddress, Exception | None]] = []
        for address in addresses:
            opened = sockets[address.key]
            if address.kind in {"tcp", "unix"} and is_shut(address.key, opened):
                try:
                    opened.listen(address.backlog)
                except OSError as problem:
                    tried.append((address, self.why_not(address, problem)))
        if failures := _alike(tried):
            raise _error_of(failures) from failures[0][1]

    def unavailable(
        self, listeners: Iterable[Listener], operators: Iterable[Listener] = ()
    ) -> Iterator[Problem]:
        """Yield why some of these listeners would get no socket, beside the operator's; `look_at_awaited` tries again."""
        own = _of_systemd(line for listener in operators for line in listen_lines(listener))
        for listener in listeners:
            prepared = self._prepared_beside(own)
            sockets = [address for address in listen_addresses(listener) if address.is_socket]
            added = [(address, prepared.add(address)) for address in sockets]
            for address, failure, ports in _alike(added):
                self.awaited.append(address)
                why = why_no_socket(address, failure, ports)
                message = f"{CANNOT_LISTEN} {address.line}: {why}"
                number = listener.endpoints.index(address.line)
                yield listener.section.problem(message, "endpoint", number)
            prepared.abandon()

    def look_at_awaited(self) -> None:
        own = _of_systemd(its.listens_at for its in self._in("in force"))
        for address in self.awaited:
            prepared = self._prepared_beside(own)
            failure = prepared.add(address)
            prepared.abandon()
            if failure is None:
                self._available()
                break

    def _prepared_beside(self, own: Iterable[ListenAddress]) -> PreparedSockets:
        prepared = PreparedSockets(self)
        for address in own:
            prepared.add(address)
        return prepared

    def get(self, key: str) -> OpenSocket | None:
        """Return the socket that rules with this address would have, if there is one already."""
        its = self._all.get(key)
        return its if its is not None and its.state in _OPEN else None

    def why_not(self, address: ListenAddress, problem: Exception) -> Exception:
        """Explain an address conflict with a socket of this service."""
        if getattr(problem, "errno", None) != errno.EADDRINUSE:
            return problem
        others = [] if self._others is None else self._others._in(*_OPEN, "unused")
        keys = [its.key for its in (*self._in("in force"), *self._in("adopted"), *others)]
        overlapping = [key for key in keys if place_of(key) == place_of(address.key)]
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
        its, text = self._all.get(key), key[4:].partition(" ")[0]
        return text if its is None or its.address is None else its.address.with_ports(text)

    def ended_by_removal(self, keys: Iterable[str]) -> list[str]:
        """Return which of these sockets are shut down when they are removed, for all processes: those of streams, if none is systemd's."""
        return [key for key in keys if key.startswith(("tcp:", "unix:")) and key not in self.passed]

    def remove_files(self, keys: Iterable[str]) -> None:
        for key in keys:
            if key in self._all:
                self._remove_file(self._all[key])

    def _relisten(self, its: OpenSocket) -> bool:
        """Listen again on a socket that was shut down; one of UNIX, or of an interface that is gone, is replaced, since it stays shut."""
        address, opened = its.listens_at, its.socket
        try:
            if its.key.startswith("unix:") or has_lost_interface(address, opened):
                its.socket = self.open_address(address)
                its.note_file()
                opened.close()
            if address.kind != "udp":
                listen_again(its.socket, address.backlog)
        except OSError as problem:
            why = why_no_socket(address, problem)
            if its.is_newly_unreached(f"it cannot listen at {its.shown}: {why}"):
                _log.error("{problem}; trying again", problem=listen_error(address, problem))
            return False
        its.unreached = ""
        return True

    def unreached(self) -> list[str]:
        """Return why clients do not reach listeners, a line each, as ``/readyz`` has them."""
        return [
            f"{its.listens_at.section}: {its.unreached}"
            for its in self._in("in force")
            if its.unreached
        ]

    def open(self, listeners: Iterable[Listener]) -> None:
        self.prepare(listeners).commit()
        self.close_unused()

    def revive(self) -> list[str]:
        """Listen again on sockets that a process of the service has shut down, on UNIX sockets whose files were removed, and on interfaces that came back.

        A compromised worker can shut one down. A file that is another program's by now stays. Return the keys of those that had to be
        replaced.
        """
        listening = self._in("in force")
        gone = [its for its in listening if its.key.startswith("unix:") and self._is_gone(its)]
        lost = [its for its in listening if has_lost_interface(its.listens_at, its.socket)]
        shut = [its for its in listening if its not in gone and is_shut(its.key, its.socket)]
        # If that fails, another process listens there, maybe the one that has shut it down.
        revived = [its for its in (*gone, *lost, *shut) if self._relisten(its)]
        for its in revived:
            why = (
                "its file had been removed"
                if its in gone
                else "its interface had been removed"
                if its in lost
                else "a process of txmux had shut the socket down; "
                "if that happens again, restart the service, and look for what has taken over a worker"
            )
            _log.error(
                "listening on {address} for {section} again: {why}",
                address=its.shown,
                section=its.listens_at.section,
                why=why,
            )
        replaced = [its.key for its in revived if its in lost or its.key.startswith("unix:")]
        if replaced:
            self.replaced()
        return replaced

    def _is_gone(self, its: OpenSocket) -> bool:
        """Return whether nothing is at the path of a UNIX socket; log once if it is a file of another program."""
        path, own = _path_of(its.key), its.file or (0, 0)
        try:
            status = path.lstat()
        except FileNotFoundError:
            return True
        except OSError:  # this process may not see it
            return False
        covered = f"another program has put its own file at {path}; move that file away"
        if not own[1] or own == (status.st_dev, status.st_ino):
            if its.unreached and not is_shut(its.key, its.socket):
                its.unreached = ""
        elif its.is_newly_unreached(covered):
            _log.error(
                "another program has put its own file at {path}, so that no client reaches {section} there; "
                "move that file away, and the socket is made again",
                path=path,
                section=its.listens_at.section,
            )
        return False

    def close_unused(self, *, keep_files: bool = False) -> None:
        """Close the unused sockets; first close the ports that accept from them.

        Unless another process serves there (`keep_files`), none that still has one open accepts from it, either: otherwise the kernel
        would queue clients for a process that an upgrade has replaced, or for one that hangs.
        """
        shut = () if keep_files else self.ended_by_removal(self.unused)
        for its in self._in("unused"):
            # systemd has its own in any case, and the rules may have them again.
            if its.key in self.passed or its.key.startswith("systemd:"):
                its.state = "adopted"
                continue
            if its.key in shut:
                _shut_down(its.socket)
            self._close(its, keep_file=keep_files)
            del self._all[its.key]

    def close(self, *, keep_files: bool = False) -> None:
        """Close all sockets; `keep_files` of UNIX sockets that another process has open, too."""
        for its in self._all.values():
            self._close(its, keep_file=keep_files or its.state == "unused")
        self._all = {its.key: its for its in self._in("in force", "closed")}
        for its in self._all.values():
            its.state = "closed"

    def _close(self, its: OpenSocket, *, keep_file: bool) -> None:
        if not keep_file:
            self._remove_file(its)
        its.socket.close()

    def _remove_file(self, its: OpenSocket) -> None:
        file, its.file = its.file, None
        try:
            if file is not None:
                remove_socket(_path_of(its.key), file)
        except OSError as problem:
            # The folder may belong to root, whose privileges were dropped for `user`.
            path = _path_of(its.key)
            _log.warn("{path} cannot be removed: {why}", path=path, why=cause_of(problem))


@define
class PreparedSockets:
    """The sockets of prepared rules, for `commit` or `abandon`.

    Attributes:
        opened: The addresses that were not open before.
        late: Those that can only be opened when others of the service have closed theirs; see `add_late`.
    """

    _store: ListeningSockets
    opened: list[ListenAddress] = attrs.field(factory=list, init=False)
    late: list[ListenAddress] = attrs.field(factory=list, init=False)
    _all: dict[str, OpenSocket] = attrs.field(factory=dict, init=False)
    _addresses: list[ListenAddress] = attrs.field(factory=list, init=False)
    # By inode: rules may name the same socket of systemd by its address, its index and its name.
    _of_systemd: dict[int, ListenAddress] = attrs.field(factory=dict, init=False)

    @property
    def sockets(self) -> dict[str, socket.socket]:
        return {key: its.socket for key, its in self._all.items()}

    def add(self, address: ListenAddress) -> Exception | None:
        """Open the socket of an address; return the error if that fails."""
        store, key = self._store, address.key
        try:
            if key in self._all:
                return OSError(errno.EADDRINUSE, "the same address is named twice: remove one")
            its = store.get(key)
            if its is None:
                its = OpenSocket(key, store.open_address(address), "opened")
                its.note_file()
        except (OSError, LookupError) as problem:
            return store.why_not(address, problem)
        if address.kind == "systemd" or key in store.passed:
            inode = os.fstat(its.socket.fileno()).st_ino
            holder = self._of_systemd.setdefault(inode, address)
            if holder is not address:
                if its.state == "opened":
                    its.socket.close()
                why = f"{holder.section} has this socket of systemd, by {holder.line}: remove one of the two"
                return OSError(errno.EADDRINUSE, why)
        self._all[key] = its
        self._addresses.append(address)
        if its.state != "in force":
            self.opened.append(address)
        return None

    def add_late(self) -> None:
        """Open what is late; a `ListenError` if another program has it."""
        late, self.late = self.late, []
        if failures := _alike([(address, self.add(address)) for address in late]):
            raise _error_of(failures) from failures[0][1]

    def listen(self) -> None:
        """Listen where these are only bound: what can still fail of `commit`."""
        self._store.listen_at(self.opened, self.sockets)

    def commit(self, *, listening: bool = True) -> None:
        """Make these the sockets of the service, and all others unused; without `listening`, call `ListeningSockets.listen`, too."""
        if listening:
            self.listen()
        store = self._store
        shown_at = {key: its.shown or shown(key, its.socket) for key, its in self._all.items()}
        were = {its.key: its for its in store._in("in force")}
        others = {key: its for key, its in store._all.items() if key not in self._all}
        # First, so that no error below leaves the sockets of two versions of the rules.
        for its in others.values():
            its.state = "unused" if its.state in _OPEN else its.state
        for address in self._addresses:
            its = self._all[address.key]
            its.state, its.address, its.shown = "in force", address, shown_at[address.key]
        store._all = {**self._all, **others}
        for section, place in _places(self.opened, shown_at):
            _log.info("listening on {address} for {section}", address=place, section=section)
        gone = {key: its.shown for key, its in were.items() if key in others}
        for section, place in _places([were[key].listens_at for key in gone], gone):
            _log.info(
                "no longer listening on {address} for {section}", address=place, section=section
            )
        for address in self._addresses:
            if address.key in were and address.kind not in {"systemd", "udp"}:
                # The backlog may have changed. For errors see `listen_again`.
                with suppress(OSError):
                    listen_again(self._all[address.key].socket, address.backlog)

    def abandon(self) -> None:
        for its in self._all.values():
            if its.state == "opened":
                self._store._close(its, keep_file=False)


def _of_systemd(addresses: Iterable[ListenAddress]) -> list[ListenAddress]:
    return [address for address in addresses if address.kind == "systemd"]


_Failure: TypeAlias = "tuple[ListenAddress, Exception, list[int]]"


def _alike(tried: Iterable[tuple[ListenAddress, Exception | None]]) -> list[_Failure]:
    """Return each failure once: of a line with several ports, the first with all ports for which it is the same."""
    found: dict[tuple[str, str], _Failure] = {}
    for address, failure in tried:
        if failure is not None:
            of = f"{address.section} {address.line}" if address.ports else address.key
            _, _, ports = found.setdefault((of, str(failure)), (address, failure, []))
            ports += [address.port] if address.ports else []
    return [*found.values()]


def _error_of(failures: Iterable[_Failure]) -> ListenError:
    return ListenError("\n".join(str(listen_error(*failure)) for failure in failures))


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
    if opened.family == socket.AF_UNIX:
        return text_of(address_of(opened.family, name))
    text = text_of(address_of(opened.family, name[:2])).replace(name[0], host_of(name))
    return f"udp:{text}" if opened.type == socket.SOCK_DGRAM else text
