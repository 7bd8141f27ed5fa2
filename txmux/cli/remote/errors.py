"""Why a service could not be asked, or does not do what it was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.errors import MuxError

if TYPE_CHECKING:
    from collections.abc import Sequence


class UsageError(MuxError):
    """It is not clear which service is meant, or an argument cannot be read."""


class NobodyError(MuxError):
    """No service answers."""


class LateError(NobodyError):
    """A service is there, but does not answer in time."""


class RefusedError(MuxError):
    """The service answers, and does not do it.

    Args:
        errors: Why, one line each.
        status: That of HTTP.
        document: The whole answer.
    """

    def __init__(self, errors: Sequence[str], status: int, document: object) -> None:
        super().__init__("\n".join(errors))
        self.status = status
        self.document = document
