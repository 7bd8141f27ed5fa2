"""What a test changes of its own process until it ends; `set_limits` changes constants of the services that it starts."""

import os
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase


def change_constants(test: SynchronousTestCase, module: object, **values: object) -> None:
    for name, value in values.items():
        test.patch(module, name, value)


def change_environment(test: SynchronousTestCase, **variables: str | None) -> None:
    """Set variables, also for the programs that it starts; `None` removes one."""
    every = {**os.environ, **variables}
    left = {name: value for name, value in every.items() if value is not None}
    change_constants(test, os, environ=left)


def trust_in_system(test: SynchronousTestCase, file: Path) -> None:
    """Have OpenSSL take a file for the authorities of the system; it asks the environment of C, which `change_environment` leaves as it is."""
    test.addCleanup(_trust, os.environ.get("SSL_CERT_FILE"))
    _trust(str(file))


def _trust(file: str | None) -> None:
    os.environ.pop("SSL_CERT_FILE", None)
    if file is not None:
        os.environ["SSL_CERT_FILE"] = file


def set_wall_clock(test: SynchronousTestCase, now: float) -> None:
    change_constants(test, time, time=lambda: now)


def pretend_user(test: SynchronousTestCase, number: int) -> None:
    """Have this process take itself for a user's; what the kernel allows stays as it is."""
    change_constants(test, os, geteuid=lambda: number)
