"""Errors of commands that talk to a running service."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from txmux.errors import MuxError
from txmux.wire.jsontext import MISSHAPEN


class UsageError(MuxError):
    """It is not clear which service is meant, or an argument cannot be read."""


class NoServiceError(MuxError):
    """No service answers."""


class LateAnswerError(NoServiceError):
    """A service is there, but does not answer in time."""


class ServiceRefusedError(MuxError):
    """The service answers, and does not do it."""

    def __init__(self, errors: Sequence[str], status: int, document: object) -> None:
        super().__init__("\n".join(errors))
        self.status = status
        self.document = document


@contextmanager
def of_txmux() -> Iterator[None]:
    """Raise `NoServiceError` if an answer, which may be that of anything, is not one of txmux."""
    try:
        yield
    except UnicodeError:  # the terminal's
        raise
    except (*MISSHAPEN, RecursionError) as problem:
        message = f"what answers is not txmux, or of a version that is too different ({problem!r}); name another endpoint"
        raise NoServiceError(message) from problem
