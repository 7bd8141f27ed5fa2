"""The files of a backend: for TLS to its servers, and the password of its proxy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from txmux.net.secrets import SecretFileError
from txmux.net.tls.errors import TLSFileError
from txmux.net.watched import FilesInUse, WatchedFiles
from txmux.rules.installed import KEYS
from txmux.rules.model import Backend
from txmux.rules.optional import named
from txmux.telemetry.formatting import utc_time

if TYPE_CHECKING:
    from txmux.backends.connect.tls import BackendTLS
    from txmux.net.tls.validity import Validity


class BackendFiles(WatchedFiles):
    """What the files of a backend have; a `TLSFileError` if they cannot be used, and none may be lacking.

    Attributes:
        made: The TLS, and the password; ``None`` until they can be used, so that no server may be connected.
    """

    made: tuple[BackendTLS | None, str] | None
    _rule, _what = "tls", "files"

    def __init__(self, backend: Backend, seconds: Callable[[], float]) -> None:
        self._backend, tls, proxy = backend, backend.tls, backend.proxy
        paths = [] if tls is None else [*tls.files]
        if proxy is not None and proxy.password is not None:
            paths.append(proxy.password)
        may_lack = any(one is not None and one.may_lack for one in (tls, proxy))
        super().__init__(seconds, f"[backend {backend.name}] ", paths, may_lack=may_lack)

    @override
    def _make(self, files: FilesInUse) -> tuple[BackendTLS | None, str]:
        tls, password, proxy = None, "", self._backend.proxy
        if self._backend.tls is not None:
            from txmux.backends.connect.tls import BackendTLS  # noqa: PLC0415 - OpenSSL takes a while

            tls = BackendTLS(self._backend.tls, read=files.read)
        if proxy is not None and proxy.password is not None:
            try:
                read = named(KEYS["backend"][proxy.key].files.reader)
                password = read(proxy.password, read=files.read)
            except SecretFileError as problem:
                raise TLSFileError(proxy.key, str(problem)) from None
        return tls, password

    @property
    def validity(self) -> Sequence[Validity]:
        return () if self.made is None or self.made[0] is None else self.made[0].validity

    @override
    def _why_kept(self, problem: TLSFileError) -> str:
        if self.made is None:
            return f"{self.section}{problem.key}: {problem.what}; no server is connected until it can be used"
        ends = [one.ends for one in self.validity if one.is_shown]
        return super()._why_kept(problem) + (f", until {utc_time(min(ends))}" if ends else "")
