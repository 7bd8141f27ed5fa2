"""The certificates of a route that terminates TLS, read again when their files change."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from typing_extensions import override

from txmux.client.tls.contexts import Contexts
from txmux.client.watched import WatchedFiles
from txmux.files import read_bytes
from txmux.net.tls.errors import TLSFileError
from txmux.rules.model import TlsSettings
from txmux.telemetry.formatting import utc_time


class CertificateStore(WatchedFiles):
    """The certificates, and the authorities of clients.

    Args:
        in_use: The files as another process of this service uses them, which it cannot read now.
        is_copied: Whether `files` is needed, for other processes; what happens is not logged here then.

    Attributes:
        files: The files as they are in use.

    Raises:
        TLSFileError: A file cannot be used.
    """

    _rule = "terminate_tls"

    def __init__(
        self,
        tls: TlsSettings,
        seconds: Callable[[], float],
        route: str,
        in_use: Mapping[Path, bytes] | None = None,
        *,
        is_copied: bool = False,
    ) -> None:
        self._tls, self._route = tls, route
        self._is_copied = is_copied
        section, is_read = f"[route {route}] ", in_use is None
        super().__init__(seconds, section, is_quiet=is_copied, is_read=is_read)
        if in_use is None:
            self._contexts = self._make_contexts()
        else:  # a disk that did not answer there might halt this process: its first look says more
            self._contexts = Contexts(tls, in_use.__getitem__, route)
            files = " or ".join(f"'{path}'" for path in in_use)
            self.trouble = self._why_kept(TLSFileError(self._rule, f"cannot use {files}"))

    @override
    def _paths(self) -> list[Path]:
        tls = self._tls
        return [*tls.files, *filter(None, (tls.client_ca, tls.client_crl))]

    def _make_contexts(self) -> Contexts:
        if not self._is_copied:
            return Contexts(self._tls, route=self._route)
        files: dict[Path, bytes] = {}

        def read(path: Path) -> bytes:
            data = files[path] = read_bytes(path)
            return data

        contexts = Contexts(self._tls, read, self._route)
        contexts.files = files
        return contexts

    @property
    def files(self) -> Mapping[Path, bytes]:
        return self._contexts.files

    def connection(self, name: str | None = None, version: str | None = None) -> SSL.Connection:
        """Make a connection for a client; see `Contexts.connection_for`."""
        self.look()
        return self._contexts.connection_for(name, version)

    def valid_until(self) -> list[tuple[str, float]]:
        return self._contexts.valid_until

    def shown(self) -> list[dict[str, Any]]:
        """Return each certificate: its file, names, issuer, and when it expires, in seconds since 1970."""
        return [
            {"file": file, "names": names, "issuer": issuer, "not_after": until}
            for (file, until), (names, issuer) in zip(
                self._contexts.valid_until, self._contexts.shown, strict=True
            )
        ]

    def prepare(self) -> tuple[Contexts, list[object], str]:
        """Read the files for `commit`, and return their states before, and why what is in use is kept, if it is.

        Files that this process has lost the permission to read need not be read if they have not changed.
        """
        states = self._states()
        try:
            return self._make_contexts(), states, ""
        except TLSFileError as problem:
            is_as_before = problem.forbidden and states == self._seen
            return self._contexts, states, "" if is_as_before else self._why_kept(problem)

    def commit(self, contexts: Contexts, states: list[object], trouble: str = "") -> None:
        self._seen = states
        before, self.trouble = self.trouble, trouble
        # With the same certificates, clients keep their sessions.
        has_changed = contexts.content != self._contexts.content
        if has_changed:
            self._contexts = contexts
        if (has_changed or before) and not trouble and not self._is_copied:
            where = f"{self._section}{self._rule}"
            self._log.info("{where}: certificates reloaded", where=where)

    @override
    def _read(self) -> Callable[[], None]:
        contexts = self._make_contexts()
        return lambda: self.commit(contexts, self._seen)

    @override
    def _why_kept(self, problem: TLSFileError) -> str:
        until = utc_time(min(seconds for _, seconds in self.valid_until()))
        return f"{super()._why_kept(problem)}, until {until}"
