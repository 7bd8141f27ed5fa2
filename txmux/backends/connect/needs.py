"""What a backend needs before it can be connected to: files for TLS, and a privilege."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.backends.connect.source import check_transparent
from txmux.errors import MuxError
from txmux.net.tls.errors import TLSFileError
from txmux.rules.model import NOWHERE
from txmux.rules.problems import RulesError

if TYPE_CHECKING:
    from txmux.backends.connect.tls import BackendTLS
    from txmux.rules.model import Backend


def needs_of(backend: Backend) -> BackendTLS | None:
    """Read a backend's files for TLS, and see whether there is the privilege for its ``source``.

    Returns:
        What makes its connections speak TLS; ``None`` if they do not.

    Raises:
        RulesError: A file cannot be used, and the rules are from a file, too.
        MuxError: The same without such a file; or the privilege is missing.
    """
    name = f"[backend {backend.name}]"
    try:
        if "client" in backend.source:
            check_transparent()
        if not backend.tls:
            return None
        from txmux.backends.connect.tls import BackendTLS  # noqa: PLC0415 - OpenSSL takes a while

        return BackendTLS(backend.tls)
    except TLSFileError as problem:
        if backend.section is NOWHERE:
            raise MuxError(f"{name} {problem.key}: {problem}") from problem
        raise RulesError([backend.section.problem(str(problem), problem.key)]) from problem
    except MuxError as problem:
        raise MuxError(f"{name} source: {problem}") from problem
