"""Requests that are not answered as their clients wish."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.errors import MuxError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class RefusedError(MuxError):
    """A request that is not answered as its client wishes.

    Args:
        status: The HTTP status.
        message: Why, and what would be right; the client reads it.
        errors: More about it, one line each.
        headers: Of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        errors: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.errors = errors
        self.headers = dict(headers or {})
