"""The certificates of a route that terminates TLS, read again when their files change."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from OpenSSL import SSL
from typing_extensions import override

from txmux.client.tls.contexts import Contexts
from txmux.net.tls.errors import TLSFileError
from txmux.net.tls.validity import Validity
from txmux.net.watched import FilesInUse, WatchedFiles
from txmux.rules.model import TlsSettings
from txmux.telemetry.formatting import utc_time


class CertificateStore(WatchedFiles):
    """The certificates, and the authorities of clients; a `TLSFileError` if a file cannot be used, and none may be lacking."""

    made: Contexts | None

    _rule, _what = "terminate_tls", "certificates"

    def __init__(self, tls: TlsSettings, seconds: Callable[[], float], route: str) -> None:
        self._tls, self._route = tls, route
        super().__init__(seconds, f"[route {route}] ", [*tls.paths], may_lack=tls.may_lack)

    @override
    def _make(self, files: FilesInUse) -> Contexts:
        return Contexts(self._tls, files.read, self._route)

    @override
    def _is_same(self, made: Contexts) -> bool:
        # With the same certificates, clients keep their sessions.
        return self.made is not None and made.content == self.made.content

    def is_lacking(self) -> bool:
        """Return whether clients have to be refused now, since what is in the files cannot be used yet."""
        if self.made is None:
            self.look()
        return self.made is None

    def connection(self, name: str | None = None, version: str | None = None) -> SSL.Connection:
        """Make a connection for a client, where nothing is lacking; see `Contexts.connection_for`."""
        self.look()
        assert self.made is not None  # noqa: S101 - the caller has asked
        return self.made.connection_for(name, version)

    def validity(self) -> Sequence[Validity]:
        return () if self.made is None else self.made.validity

    def shown(self) -> Sequence[Mapping[str, Any]]:
        return () if self.made is None else self.made.shown

    @override
    def _why_kept(self, problem: TLSFileError) -> str:
        if self.made is None:
            return f"{self.section}{problem.key}: {problem.what}; its clients are refused until it can be used"
        lists = [one.ends for one in self.validity() if one.key == "tls_client_crl" and one.ends]
        until = min([*lists, *(row["not_after"] for row in self.shown())])
        return f"{super()._why_kept(problem)}, until {utc_time(until)}"
