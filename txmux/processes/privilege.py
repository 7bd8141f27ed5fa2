"""What is left of the privilege when the service has become the user of the rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.files import use_helper
from txmux.processes.opener import Opener, opener_of
from txmux.rules.reading.parser import load, read_again

if TYPE_CHECKING:
    from pathlib import Path

    from txmux.processes.account import Account
    from txmux.rules.model import Rules
    from txmux.serving.store import ListeningSockets

__all__ = ["Privilege"]


class Privilege:
    """Has a helper open what the service may not open any more; without one, the service does all by itself.

    Args:
        sockets: Those of the service.

    Attributes:
        opener: The helper, if there is one.
    """

    def __init__(self, sockets: ListeningSockets) -> None:
        self._sockets = sockets
        self.opener: Opener | None = None

    def keep(self, rules: Rules, account: Account | None) -> None:
        """Start the helper, if the service is going to become another user, and its rules are from a file."""
        if account is None or account.is_current or not rules.files.texts or self.opener:
            return
        opener = self.opener = Opener.start(rules.path)
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
            self.opener.close()
            self.opener = None
