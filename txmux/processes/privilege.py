"""What is left of the privilege when the service has become the user of the rules."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from txmux.files import use_helper
from txmux.processes.opener import Opener, opener_of
from txmux.rules.reading.parser import load, read_again

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from txmux.processes.account import Account
    from txmux.rules.model import Rules
    from txmux.serving.store import ListeningSockets

__all__ = ["KEY", "Privilege"]

KEY = "opener:"
"""Of what leads to the helper, among the sockets that are handed to a new process. One that does not know it closes it."""


class Privilege:
    """Has a helper open what the service may not open any more; without one, the service does all by itself.

    Args:
        sockets: Those of the service.

    Attributes:
        opener: The helper, if there is one.
    """

    def __init__(self, sockets: ListeningSockets) -> None:
        self._sockets = sockets
        self._is_shared = False
        self.opener: Opener | None = None

    def take(self, connection: socket.socket) -> None:
        """Go on with the helper of the process in whose place this one is."""
        self._use(Opener(connection))

    @contextmanager
    def handed_over(self) -> Iterator[dict[str, socket.socket]]:
        """Give what leads the process that takes the place of this one to the helper, if there is one, by `KEY`."""
        if self.opener is None:
            yield {}
            return
        self._is_shared = True
        with self.opener.another(may_all=True) as connection:
            yield {KEY: connection}

    def keep(self, rules: Rules, account: Account | None) -> None:
        """Start the helper, if the service is going to become another user, and its rules are from a file."""
        if account is None or account.is_current or not rules.files.texts or self.opener:
            return
        self._use(Opener.start(rules.path))

    def _use(self, opener: Opener) -> None:
        self.opener = opener
        use_helper(opener.open_file)
        self._sockets.open_place = opener_of(self._sockets.open_place, opener)

    def read(self, path: Path) -> Rules:
        """Read the rules again.

        Raises:
            MuxError: All that is wrong.
        """
        return load(path) if self.opener is None else read_again(self.opener.read_rules())

    def commit(self) -> None:
        """Note that the rules that were read last are in force."""
        if self.opener is not None:
            self.opener.commit()

    def give_up(self) -> None:
        """Part with the helper."""
        if self.opener is not None:
            use_helper(None)
            self.opener.close(wait=not self._is_shared)
            self.opener = None
