"""This process takes the place of another one, and another one its."""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

from txmux.processes.notify import Notifier, sockets_from_store
from txmux.processes.pidfile import PidFile, PidFileError
from txmux.processes.predecessor import Predecessor
from txmux.processes.privilege import KEY, Privilege
from txmux.processes.successor import UpgradeError
from txmux.processes.upgrade import Upgrade
from txmux.serving.places import places_of
from txmux.serving.store import close_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from txmux.errors import MuxError
    from txmux.processes.exchange import Exchange
    from txmux.rules.model import Listener
    from txmux.serving.store import ListeningSockets

__all__ = ["Changeover"]


class Changeover:
    """What a service is told of both.

    Args:
        reactor: The process's own.
        sockets: Those of the service.
        pidfile: Names the process that serves, if it is wanted.
        failed: Is told if the old process ends before this one serves.
        notifier: Leads to systemd, which may have kept sockets.
        privilege: What the service may do beyond its user.

    Attributes:
        is_waiting: Whether another process serves yet.
        has_successor: Whether another process serves already.
        down: What the old process has found out about servers; see `Upstreams.down`.
    """

    def __init__(
        self,
        reactor: Any,
        sockets: ListeningSockets,
        pidfile: PidFile | None,
        failed: Callable[[MuxError], object],
        notifier: Notifier,
        privilege: Privilege,
    ) -> None:
        self._reactor = reactor
        self._sockets = sockets
        self._pidfile = pidfile
        self._failed = failed
        self._notifier = notifier
        self._privilege = privilege
        self._predecessor: Predecessor | None = None
        self._is_told = False
        self._unneeded: dict[str, socket.socket] = {}
        self._upgrade: Upgrade | None = None
        self.is_waiting = self.has_successor = False
        self.down: Sequence[dict[str, Any]] = ()

    # In place of another one.

    def find_predecessor(self) -> None:
        """Take the sockets of the process that has started this one to take its place, if one has.

        Raises:
            MuxError: It has handed nothing over.
        """
        predecessor = self._predecessor = Predecessor.find()
        if predecessor is not None:
            self.is_waiting = True
            for key, opened in predecessor.sockets.items():
                take = self._privilege.take if key == KEY else partial(self._sockets.adopt, key)
                take(opened)
            self._notifier.taken(predecessor.sockets)
            self.down = predecessor.state.get("down", ())
            return
        kept = sockets_from_store(self._reactor, os.environ)
        self._notifier.taken(kept)
        for key, opened in kept.items():
            self._sockets.adopt(key, opened)

    def open(self, listeners: Iterable[Listener]) -> None:
        """Open all sockets; what the old process has, but is not needed any more, is not closed before it is certain.

        Raises:
            ListenError: One cannot be opened.
        """
        self._unneeded = self._sockets.prepare(listeners).commit()
        if not self.is_waiting:
            self._close_unneeded()

    def _close_unneeded(self) -> None:
        for key, unneeded in self._unneeded.items():
            close_socket(key, unneeded)
        self._unneeded = {}

    def cannot_serve(self, why: object) -> None:
        """Tell the old process."""
        if self._predecessor is not None and not self._is_told:
            self._predecessor.fail(why)

    def can_serve(self, exchange: Exchange, is_well: Callable[[], bool]) -> None:
        """Tell the old process, if there is one; otherwise this one serves from now on. Only the first call counts.

        Args:
            exchange: What would serve. It does not accept yet, if there is an old process.
            is_well: Tells whether all of it works.
        """
        if self._is_told:
            return
        self._is_told = True
        predecessor = self._predecessor
        if predecessor is None:
            try:
                self._name_process()
            except PidFileError as problem:
                self._failed(problem)
            else:
                self._serves(is_well)
            return

        async def accept() -> None:
            self._name_process()  # while there is a way back
            self._close_unneeded()
            await exchange.accept()
            self.is_waiting = False
            self._serves(is_well)

        async def take_over(descriptors: Sequence[int]) -> None:
            await exchange.adopt([socket.socket(fileno=descriptor) for descriptor in descriptors])

        predecessor.attach(
            self._reactor,
            {"accept": accept, "take_over": take_over},
            self._alone,
            exchange.processes,
        )

    def _name_process(self) -> None:
        if self._pidfile is not None:
            self._pidfile.write()

    def _serves(self, is_well: Callable[[], bool]) -> None:
        self._notifier.keep(self._sockets.sockets())
        self._notifier.ready("serving", is_new_main=self._predecessor is not None)
        self._notifier.watch(is_well)

    def _alone(self) -> None:
        if self.is_waiting:
            self._failed(UpgradeError("the old process has ended before this one served"))

    # Another one in its place.

    @property
    def is_under_way(self) -> bool:
        """Whether another process may be about to serve."""
        return self._upgrade is not None or self.is_waiting or self.has_successor

    async def upgrade(
        self, listeners: Iterable[Listener], exchange: Exchange, state: dict[str, Any]
    ) -> str:
        """Have this program started again, and hand it all that can be; then this process may end.

        Args:
            listeners: What clients come in by.
            exchange: What serves.
            state: What the new process is to know.

        Returns:
            What is different now.

        Raises:
            UpgradeError: The new process does not serve, and this one does as before.
        """
        if self._upgrade is not None:
            raise UpgradeError("an upgrade is under way already")
        if self.is_waiting or self.has_successor:
            raise UpgradeError("this process is not the one that serves")
        self._upgrade = Upgrade(exchange, self._reactor)
        try:
            _check(listeners)
            with self._privilege.handed_over() as helper:
                sockets = {**self._sockets.sockets(), **helper}
                changes = await self._upgrade.run(sockets, state)
            self.has_successor = True
        finally:
            self._upgrade = None
        self._notifier.stop()
        return changes

    # The end.

    def stop(self) -> None:
        """End a new process that does not serve yet, and close the sockets; their files stay if another process has them."""
        shared = self.is_waiting or self.has_successor
        if self._upgrade is not None:
            shared = shared or self._upgrade.is_committed
            self._upgrade.give_up()
        if not shared:
            self._notifier.stopping()
        self._notifier.stop()
        self._sockets.close(keep_files=shared or self._notifier.keeps)
        for key, unneeded in self._unneeded.items():
            close_socket(key, unneeded, keep_file=True)
        if self._pidfile is not None:
            self._pidfile.remove()


def _check(listeners: Iterable[Listener]) -> None:
    """See whether another process can have all sockets.

    Raises:
        UpgradeError: Twisted has opened one.
    """
    for listener in listeners:
        for place in places_of(listener):
            if not place.is_plain:
                raise UpgradeError(
                    f"[listen {listener.name}] endpoint {place.text}: an endpoint of type {place.kind!r} cannot be handed "
                    "to another process; write ADDRESS:PORT, :PORT, unix: or systemd:, or start txmux anew"
                )
