"""One line in the service's log for each change that somebody asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from txmux.errors import printable

if TYPE_CHECKING:
    from txmux.admin.caller import Caller

_log = Logger()


def audit(caller: Caller, what: str, status: int, result: str) -> None:
    """Log a change.

    Args:
        caller: Who asked for it.
        what: Method and path.
        status: The HTTP status of the answer.
        result: What came of it, on one or several lines.
    """
    level = _log.info if status < 400 else _log.warn
    level(
        "admin: {caller} asked for {what}: {result}",
        caller=caller.name,
        what=printable(what),
        result=printable("; ".join(result.splitlines())),
    )
