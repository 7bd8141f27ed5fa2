"""Holds back signals that mean nothing to a process yet. Imports nearly nothing, since it comes before all other imports."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_HELD = signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2
"""Those by which a service is asked for something; by default, each would end the process."""


def hold_signals(*numbers: int) -> None:
    """Block these signals, or all that ask a service for something; a process that is started meanwhile has to release them, too."""
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers or _HELD)


def release_signals(*numbers: int) -> None:
    # Signals that have come meanwhile take effect before this returns.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers or _HELD)


@contextmanager
def held(*more: int) -> Iterator[None]:
    """Hold signals for a process that is started inside, and which has to release them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*_HELD, *more))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
