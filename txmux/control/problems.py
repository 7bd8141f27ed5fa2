"""What is wrong with what an operator asks for."""

from __future__ import annotations

from txmux.errors import MuxError

__all__ = ["UnknownError"]


class UnknownError(MuxError):
    """The rules have no such thing."""
