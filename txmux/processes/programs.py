"""What the helper that opens files does for a process in a sandbox: it starts the service's program again, which is to be outside of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from txmux.processes.pidfd import pidfd_open
from txmux.processes.workers.environment import environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txmux.processes.privilege.account import Account

__all__ = ["Programs", "told_to_helper"]

_TOLD = "TXMUX_PROGRAM"
"""The environment variable that tells the helper what is started."""


def told_to_helper() -> dict[str, str]:
    """Give the environment of a helper: it starts what this process was started as, and nothing else."""
    others = environment()
    own = {name: os.environ.get(name) for name in others if others[name] != os.environ.get(name)}
    return {**others, _TOLD: json.dumps({"command": sys.orig_argv, "environment": own})}


class Programs:
    """Starts the program, and keeps those that it has started."""

    def __init__(self) -> None:
        told: dict[str, Any] = json.loads(os.environ.pop(_TOLD, "{}"))
        self._command: list[str] = told.get("command", [])
        self._environment = dict(os.environ)
        for name, value in told.get("environment", {}).items():
            self._environment.pop(name, None)
            if value is not None:
                self._environment[name] = value
        self._started: dict[int, subprocess.Popen[bytes]] = {}

    def start(
        self, descriptors: Sequence[int], names: Sequence[str], account: Account | None
    ) -> tuple[dict[str, int], list[int]]:
        """Start it.

        Args:
            descriptors: Its standard error stream, and those that it inherits.
            names: The environment variables that tell it of these.
            account: Whom it becomes.

        Returns:
            Its number, and a descriptor that can be read when it has ended (pidfd_open(2)).

        Raises:
            OSError: It cannot be started.
        """
        stderr, *inherited = descriptors
        found = {name: str(one) for name, one in zip(names, inherited, strict=True)}
        become: dict[str, Any] = {}
        if account is not None:
            become = {"user": account.uid, "group": account.gid, "extra_groups": account.groups()}
        started = subprocess.Popen(  # nosec B603  # noqa: S603 - what the service was started as
            self._command,
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            env={**self._environment, **found},
            pass_fds=inherited,
            **become,
        )
        self._started[started.pid] = started
        return {"pid": started.pid}, [pidfd_open(started.pid)]

    def status(self, pid: int) -> tuple[dict[str, int | None], list[int]]:
        """Give how one has ended, as `subprocess.Popen.returncode` has it."""
        return {"status": self._started[pid].poll() if pid in self._started else None}, []
