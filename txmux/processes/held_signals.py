"""Holds back signals that mean nothing to a process yet. Imports nearly nothing, since it comes before all other imports."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_HELD = signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2
"""Those by which a service is asked for something; by default, each would end the process."""


def hold_signals(*numbers: int) -> None:
    """Have the kernel keep these signals, or all, until they are released; processes that are started meanwhile have to release them, too."""
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers or _HELD)


def release_signals(*numbers: int) -> None:
    """Let these signals, or all, have their effect; first those that have come meanwhile."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers or _HELD)


@contextmanager
def held(*more: int) -> Iterator[None]:
    """Hold signals for a process that is started inside, and which has to release them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*_HELD, *more))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
