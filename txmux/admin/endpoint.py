"""The endpoints ``admin`` and ``metrics``: their sockets, which last as long as the rules name them, and their servers."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txmux.admin.access import NO_ACCESS, AdminAccess, AdminTokens
from txmux.admin.listen_addresses import (
    admin_addresses,
    automatic_addresses,
    make_own_folder,
    why_not,
)
from txmux.classes import define
from txmux.control.control import Control
from txmux.errors import cause_of
from txmux.files import FileId
from txmux.net.sockets.descriptors import Descriptors
from txmux.net.sockets.poller import Poller
from txmux.net.sockets.port import SocketPort
from txmux.rules.model import Rules
from txmux.rules.model.rules import OPTIONS
from txmux.serving.endpoints import accept_waiting, stop_listening
from txmux.serving.listen_addresses import ListenAddress
from txmux.serving.store import ListeningSockets, PreparedSockets

if TYPE_CHECKING:
    from txmux.admin.http import AdminClients

PREFIX = "admin "  # begins the keys of these sockets among all that are handed to another process
_SAMPLING = 5.0  # seconds between two samples of the counters, for the rates
_LOOKING = 3.0  # and between two looks for what needs attention, which is logged and has its time from then
_ANSWERING = 5.0  # seconds for clients to take their answers at the end
_ASKING = 1.0
"""Seconds for clients of a removed endpoint that have only just come to send their request."""
_AT_ONCE = 16
"""Connections accepted before the present ones are read: beyond 64 the oldest is closed, which may have sent its request."""


class AdminEndpoints:
    """The endpoints of one service, beside its `sockets`; `is_automatic` says whether ``admin = auto`` opens a socket."""

    _log = Logger()

    def __init__(
        self, reactor: Any, control: Control, sockets: ListeningSockets, *, is_automatic: bool
    ) -> None:
        self._reactor = reactor
        self._control = control
        self._is_automatic = is_automatic
        self._accepting = False
        self._sampling = LoopingCall(control.recurring.run, "count for the rates", self._sample)
        self._looking = LoopingCall(control.recurring.run, "see what needs attention", self._look)
        self._sampling.clock = self._looking.clock = reactor
        self.settings: dict[str, str] = {}  # by the key of the address, as all of these
        self._tokens: AdminTokens | None = None
        self._access = NO_ACCESS
        self._ports: dict[str, Any] = {}
        self._lacking: set[str] = set()  # of these, those for which there are no descriptors
        self.clients: dict[str, AdminClients] = {}
        self._ending: set[Deferred[None]] = set()
        self._reading_tokens: Deferred[None] = succeed(None)
        self.store = ListeningSockets(reactor, sockets.replaced, others=sockets)

    def adopt(self, key: str, opened: socket.socket, file: FileId | None = None) -> None:
        self.store.adopt(key.removeprefix(PREFIX), opened, file)

    def files(self) -> Mapping[str, FileId]:
        return {f"{PREFIX}{key}": file for key, file in self.store.files.items()}

    def sockets(self) -> Mapping[str, socket.socket]:
        return {f"{PREFIX}{key}": opened for key, opened in self.store.sockets().items()}

    def prepare(self, rules: Rules) -> PreparedAdminEndpoints:
        """Open the sockets of rules that are not open yet; nothing else changes. Without a token for TCP this is an error, too."""
        addresses = [*admin_addresses(rules, self._find)]
        settings = rules.settings
        tokens = AdminTokens(settings)
        access = AdminAccess.of(tokens.read(), settings.admin_users)
        places = (address for _, address in addresses)
        sockets = self.store.prepare_addresses(places, rules.listeners)
        listening = {address.key: setting for setting, address in addresses}
        return PreparedAdminEndpoints(sockets, listening, tokens, access)

    def _find(self, automatic: list[ListenAddress]) -> ListenAddress | None:
        """Choose where ``admin = auto`` listens: where it already does, since privileges may have been dropped."""
        if not self._is_automatic:
            return None
        for address in automatic:
            if self.store.get(address.key):
                return address
        for address in automatic:
            if not why_not(address):
                return address
        make_own_folder()
        return next((address for address in automatic if not why_not(address)), None)

    def open(self, rules: Rules) -> None:
        """Open all at the start; see `prepare`."""
        self.commit(self.prepare(rules))
        automatic = automatic_addresses(rules.path)
        is_automatic = self._is_automatic and "auto" in rules.settings.admin
        if not is_automatic or any(self.store.get(address.key) for address in automatic):
            return
        why = ", ".join(filter(None, map(why_not, automatic)))
        from_options = str(rules.path) == OPTIONS
        if "admin" in self.settings.values():
            named_by = "--admin ENDPOINT" if from_options else f"--rules {rules.path}"
            self._log.info(
                "commands such as 'txmux status' need {option}: {why}", option=named_by, why=why
            )
        else:
            advice = "give --admin" if from_options else "set 'admin' in [txmux] to"
            self._log.warn(
                "commands such as 'txmux status' will not work: {why}; {way} unix:/PATH, where a socket can be made",
                why=why,
                way=advice,
            )

    def commit(self, prepared: PreparedAdminEndpoints) -> None:
        """Use them, after the listeners of the rules; it is a `ListenError` if another program has what was late."""
        try:
            prepared.sockets.add_late()
        finally:
            self._commit(prepared)

    def _commit(self, prepared: PreparedAdminEndpoints) -> None:
        prepared.sockets.commit()
        opened = self.store.sockets()
        self.settings = {key: its for key, its in prepared.settings.items() if key in opened}
        self._access = prepared.access
        self._tokens, self._control.token_trouble = prepared.tokens, ""
        if self.settings:
            _load()  # while this process is still root: the user of the rules may be unable to read Python's files
        if self._accepting:
            self.accept()

    def unused(self) -> list[str]:
        return [f"{PREFIX}{key}" for key in self.store.unused]

    def accept(self) -> None:
        self._accepting = True
        for key in self._ports.keys() - self.settings.keys():
            accept_waiting(self._ports[key])  # once their socket is shut, they would be reset
        self.store.close_unused()
        self._make_again()
        sockets = self.store.sockets()
        for key in [key for key in self._ports if key not in self.settings]:
            stop_listening(self._ports.pop(key))
            self._end(self.clients.pop(key), _ASKING)
        self._lacking &= self.settings.keys()
        for key, setting in self.settings.items():
            if key not in self._ports:
                self._listen(key, setting, sockets[key])
            self.clients[key].site.guard.access = self._access
        for clients in self.clients.values():
            clients.go_on()
        if not self._sampling.running:
            self._sampling.start(_SAMPLING)
            self._looking.start(_LOOKING, now=False)  # workers are only starting

    def _sample(self) -> Deferred[None]:
        if self._tokens is not None and self._reading_tokens.called:
            # Not waited for, since the disk may not answer.
            self._reading_tokens = Deferred.fromCoroutine(self._read_again(self._tokens))
        return Deferred.fromCoroutine(self._control.sample())

    async def _read_again(self, tokens: AdminTokens) -> None:
        changed = await tokens.read_again()
        if tokens is not self._tokens:  # a reload has read them meanwhile
            return
        if changed is not None:
            self._access = self._access.with_tokens(changed)
            for clients in self.clients.values():
                clients.site.guard.access = self._access
        self._control.token_trouble = tokens.trouble

    def _make_again(self) -> bool:
        """Replace sockets that clients can no longer reach, after accepting those that wait; return whether one was replaced."""
        replaced = self.store.revive()
        for key in replaced:
            if (port := self._ports.pop(key, None)) is not None:
                accept_waiting(port)
                stop_listening(port)
        return bool(replaced)

    def _look(self) -> Deferred[None]:
        if self._make_again() or self._lacking:
            self.accept()
        return Deferred.fromCoroutine(self._control.look())

    def _listen(self, key: str, setting: str, opened: socket.socket) -> None:
        """Accept clients; if descriptors have run out, `_look` tries again."""
        AdminClients, make_site = _load()  # noqa: N806
        clients = self.clients.get(key)
        if clients is None:
            # Those of one address do not take the places of those of another.
            site = make_site(setting, self._control, self._reactor.seconds)
            clients = self.clients[key] = AdminClients(site, self._reactor)
        try:
            poller, duplicate = Poller.for_reactor(self._reactor), opened.dup()
            port = SocketPort(
                poller, duplicate, clients, batch_size=_AT_ONCE, descriptors=_DESCRIPTORS
            )
            port.startListening()
        except OSError as problem:
            if key not in self._lacking:
                self._lacking.add(key)
                what = "[txmux] {setting}: it cannot accept yet, which is tried again: {why}"
                self._log.warn(what, setting=setting, why=cause_of(problem))
        else:
            self._lacking.discard(key)
            self._ports[key] = port

    def _end(self, clients: AdminClients, first: float = 0.0) -> None:
        ending = Deferred.fromCoroutine(clients.end(_ANSWERING, first))
        self._ending.add(ending)
        ending.addCallback(lambda _: self._ending.discard(ending))

    def pause(self) -> None:
        """Leave new clients to another process, or in the queues until `accept`."""
        self._accepting = False
        if self._sampling.running:
            self._sampling.stop()
            self._looking.stop()
        for port in self._ports.values():
            stop_listening(port)
        self._ports.clear()

    def hold_requests(self) -> None:
        """Pause, and answer no request of present clients either, until `accept` or `be_replaced`."""
        self.pause()
        for clients in self.clients.values():
            clients.hold_requests()

    def be_replaced(self) -> None:
        """Refuse the requests of present clients, since another process serves; see `hold_requests`."""
        for clients in self.clients.values():
            clients.be_replaced()

    async def stop(self, *, keep_files: bool) -> None:
        """Close all after clients have their answers; files of UNIX sockets stay if another process has these open, too."""
        self.pause()
        while self.clients:
            self._end(self.clients.popitem()[1])
        await gatherResults([*self._ending])
        self.store.close(keep_files=keep_files)


@define
class PreparedAdminEndpoints:
    """The next endpoints, for `AdminEndpoints.commit`, or to abandon their sockets."""

    sockets: PreparedSockets
    settings: dict[str, str]
    tokens: AdminTokens
    access: AdminAccess


_DESCRIPTORS = Descriptors(spare=4)


def _load() -> tuple[Any, Any]:
    """Import the HTTP server; not before there is an endpoint, since other services do not need it."""
    from txmux.admin.http import AdminClients  # noqa: PLC0415
    from txmux.admin.site import make_site  # noqa: PLC0415

    return AdminClients, make_site
