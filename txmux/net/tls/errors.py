"""Errors of TLS, and certificates that end; without OpenSSL, which is imported only where rules have TLS."""

import errno
import time
from collections.abc import Iterable, Iterator

import attrs

from txmux.errors import MuxError
from txmux.rules.model import Section
from txmux.rules.problems import Problem
from txmux.telemetry.formatting import certificate_end

CLIENT_CERTIFICATE = "tls_client_certificate"  # the key


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


def ending(
    section: Section,
    key: str,
    certificates: Iterable[tuple[str, float]],
    number: int | None = None,
) -> Iterator[Problem]:
    """Warn of certificates that have ended or soon end; `certificates` are files and when each expires, in seconds since 1970."""
    now = time.time()
    for file, until in certificates:
        if when := certificate_end(until, now):
            found = section.problem(f"the certificate '{file}' {when}", key, number)
            yield attrs.evolve(found, warning=True)
