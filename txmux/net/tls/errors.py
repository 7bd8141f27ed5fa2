"""Errors of TLS; without OpenSSL, which is imported only where rules have TLS."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from txmux.errors import MuxError
from txmux.rules.model import NOWHERE, Route, Rules, TlsEnd
from txmux.rules.problems import Problem


class HandshakeError(MuxError):
    """The connection was established, but its TLS handshake failed; the message says why."""


class TLSFileError(MuxError):
    """A file that TLS needs cannot be used.

    Args:
        key: The key that names it in the rules.
        message: What is wrong and what to change, without the key.
        cause: The system's error; `forbidden` says whether only the permission to read is missing.
    """

    def __init__(self, key: str, message: str, cause: OSError | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.forbidden = cause is not None and cause.errno in {errno.EACCES, errno.EPERM}


def errors(
    rules: Rules, read: Callable[[Route, TlsEnd], object]
) -> Iterator[tuple[TLSFileError, Problem]]:
    """Read the files of all routes that terminate TLS, and yield each error with the line that names the file."""
    for route in rules.routes:
        try:
            if route.terminate_tls is not None:
                read(route, route.terminate_tls)
        except TLSFileError as error:  # noqa: PERF203 - all errors are reported
            if route.section is NOWHERE:
                header = f"route {route.name}"
                yield error, Problem(str(rules.path), 0, header, error.key, str(error))
            else:
                yield error, route.section.problem(str(error), error.key)
