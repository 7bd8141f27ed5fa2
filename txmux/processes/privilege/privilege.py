"""What is left of the privilege when the service has become the user of the rules."""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from txmux.files import use_helper
from txmux.processes.outside import Outside
from txmux.processes.privilege.opener import Opener, OpenerError, opener_of
from txmux.processes.privilege.sandbox import can_be_alone, confine, sandbox_of
from txmux.processes.upgrade.container import holds_container
from txmux.rules.model.files import OPTIONS
from txmux.rules.reading.files import included_paths
from txmux.rules.reading.parser import load, read_again

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.processes.privilege.account import Account
    from txmux.processes.systemd.pidfile import PidFile
    from txmux.rules.model import Rules
    from txmux.serving.store import ListeningSockets

__all__ = ["KEY", "READS_BY", "Privilege", "read_by_helper"]

KEY = "opener:"
"""Of what leads to the helper, among the sockets that are handed to a new process. One that does not know it closes it."""

READS_BY = "TXMUX_HELPER"
"""The environment variable that tells a process which takes the place of another one by which descriptor it reads the rules."""


def read_by_helper() -> Rules | None:
    """Read the rules by the helper of the process in whose place this one is to be, who may then open what they name.

    Returns:
        The rules; ``None`` if there is no helper.

    Raises:
        MuxError: All that is wrong.
    """
    number = os.environ.pop(READS_BY, None)
    if number is None:
        return None
    with socket.socket(fileno=int(number)) as connection:
        try:
            return read_again(Opener(connection).read_rules())
        except OSError as problem:
            raise OpenerError(problem.strerror) from problem


class Privilege:
    """Has a helper open what the service may not open any more; without one, the service does all by itself.

    Args:
        stores: The sockets of the service.
        pidfile: Names the process that serves, if it is wanted.
        confines: Whether the process is the service's alone, and may confine itself.

    Attributes:
        opener: The helper, if there is one; it may be for workers alone.
    """

    _log = Logger()

    def __init__(
        self, *stores: ListeningSockets, pidfile: PidFile | None = None, confines: bool = False
    ) -> None:
        self._may_confine = confines
        self._is_confined = self._is_unprivileged = False
        self._pidfile = pidfile
        self._stores = stores
        self._folder = Path.cwd()
        self._is_shared = False
        self.opener: Opener | None = None

    def take(self, connection: socket.socket) -> None:
        """Go on with the helper of the process in whose place this one is."""
        self._use(Opener(connection))

    @contextmanager
    def handed_over(self) -> Iterator[dict[str, socket.socket]]:
        """Give what leads the process that takes the place of this one to the helper, if there is one, by `KEY`."""
        if self.opener is None or self._is_unprivileged:
            # A helper without a privilege is started again, by whatever version is installed then.
            yield {}
            return
        self._is_shared = True
        with self.opener.another(may_all=True) as connection:
            yield {KEY: connection}

    def keep(self, rules: Rules, account: Account | None) -> None:
        """Start the helper, if the service is going to become another user, or its workers open nothing by themselves.

        It reads the rules from their file, so without one there is none.

        Raises:
            SandboxError: The rules want a sandbox that cannot be.
        """
        sandbox = sandbox_of(rules)
        if sandbox != "off":
            self._log.info(
                "sandbox: workers can open only what the rules name, execute nothing, and gain no privileges"
            )
        if not rules.files.texts or self.opener:
            return
        pidfile = self._pidfile.path if self._pidfile else None
        text = rules.files.texts.get(OPTIONS)  # which the helper cannot read by itself
        if account is not None and not account.is_current:
            self._use(Opener.start(rules.path, pidfile, text))
        elif sandbox != "off" or (self._may_confine and can_be_alone(rules)):
            self._is_unprivileged = True
            self.opener = Opener.start(rules.path, pidfile, text, is_privileged=False)

    def confine(self, rules: Rules) -> None:
        """Have this process, which serves alone, open nothing by itself from now on, if the rules and the system let it."""
        if self._is_confined or not self._may_confine or self.opener is None:
            return
        if not can_be_alone(rules):
            return
        if threading.active_count() > 1:  # each would stay free
            self._log.info("no sandbox until the service is upgraded or started again")
            return
        holds_container()  # which it could not find out later
        if confine("auto", starts=True):
            self._is_confined = True
            self._use(self.opener)
            self._log.info(
                "sandbox: the process can open only what the rules name, and gain no privileges"
            )

    def included_paths(self, folder: Path, pattern: str) -> list[Path]:
        """Give the files of a pattern of ``include``; see `txmux.rules.reading.files.included_paths`."""
        if self._is_confined and self.opener is not None:
            return self.opener.included_paths(pattern)
        return included_paths(folder, pattern)

    def outside(self, reactor: Any) -> Outside | None:
        """Give what starts this program anew, if this process cannot do so itself."""
        if not self._is_confined or self.opener is None:
            return None
        return Outside(reactor, self.opener)

    def given_up(self, user: str) -> None:
        """Tell that the process is another user from now on, and what that one cannot do."""
        self._log.info("the process is user {user} from now on", user=user)
        if not os.access(sys.executable, os.X_OK):
            self._log.warn(
                "user {user} cannot run {python}: no worker can be started later, and there can be no upgrade; "
                "install Python and txmux where that user may run them",
                user=user,
                python=sys.executable,
            )

    def _use(self, opener: Opener) -> None:
        self.opener = opener
        use_helper(opener.open_file, opener.remove_socket)
        if self._pidfile is not None:
            self._pidfile.by_helper = opener.name
        for store in self._stores:
            store.open_place = opener_of(store.open_place, opener)

    def read(self, path: Path) -> Rules:
        """Read the rules again.

        Args:
            path: Their file, seen from where the process was at first.

        Raises:
            MuxError: All that is wrong.
        """
        if Path.cwd() != self._folder:  # whoever runs the service went elsewhere
            path = self._folder / path
        if self.opener is None:
            return load(path)
        if self._is_unprivileged and not self._is_confined:
            load(path)  # which tells of all errors; the helper has to know what the rules name then
        try:
            return read_again(self.opener.read_rules())
        except OSError as problem:
            raise OpenerError(problem.strerror) from problem

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
