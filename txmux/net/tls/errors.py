"""Errors of TLS; without OpenSSL, which is imported only where rules have TLS."""

import errno

from txmux.errors import MuxError

CLIENT_CERTIFICATE = "tls_client_certificate"  # the key
UNKNOWN_AUTHORITY = {2, 19, 20, 21}  # X509_V_ERR_* of OpenSSL


class HandshakeError(MuxError):
    """The connection was established, but its TLS handshake failed; the message says why."""


class TLSFileError(MuxError):
    """A file that TLS needs cannot be used.

    Args:
        key: The key that names it in the rules.
        message: What is wrong and what to change, without the key.
        cause: The system's error, if it is one; `forbidden` says whether only the permission to read is missing.
    """

    def __init__(self, key: str, message: str, cause: OSError | None = None) -> None:
        super().__init__(message)
        self.key, self.cause = key, cause
        self.forbidden = cause is not None and cause.errno in {errno.EACCES, errno.EPERM}

    @property
    def what(self) -> str:
        return str(self).rpartition("; ")[0] or str(self)
