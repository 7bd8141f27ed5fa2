"""The certificates of a route that terminates TLS, read again when their files change."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from typing_extensions import override

from txmux.client.tls.contexts import Contexts
from txmux.files import read_bytes
from txmux.net.tls.errors import TLSFileError
from txmux.net.tls.validity import Validity
from txmux.net.watched import WatchedFiles
from txmux.rules.model import TlsSettings
from txmux.telemetry.formatting import utc_time


class CertificateStore(WatchedFiles):
    """The certificates, and the authorities of clients.

    Args:
        in_use: The files as another process of this service uses them, which it cannot read now; empty if it has none, either.
        is_copied: Whether `files` is needed, for other processes; what happens is not logged here then.

    Raises:
        TLSFileError: A file cannot be used, and none may be lacking.
    """

    contexts: Contexts | None  # `None` until files can be used that may be lacking

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
        self._tls, self._route, self.may_lack = tls, route, tls.may_lack
        self._is_copied = is_copied
        section, is_read = f"[route {route}] ", in_use is None
        super().__init__(seconds, section, is_quiet=is_copied, is_read=is_read)
        self.contexts = None
        if in_use is None:
            try:
                self.contexts = self._make_contexts()
            except TLSFileError as problem:
                if not tls.may_lack:
                    raise
                self._report(self._why_kept(problem))
        elif in_use:
            # A disk that did not answer there might halt this process: its first look says more.
            self.contexts = Contexts(tls, in_use.__getitem__, route)
            self.contexts.files = in_use
            files = " or ".join(f"'{path}'" for path in in_use)
            self.trouble = self._why_kept(TLSFileError(self._rule, f"cannot use {files}"))

    @override
    def _paths(self) -> list[Path]:
        return [*self._tls.paths]

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
        """The files as they are in use."""
        return {} if self.contexts is None else self.contexts.files

    def is_lacking(self) -> bool:
        """Return whether clients have to be refused now, since what is in the files cannot be used yet."""
        if self.contexts is None:
            self.look()
        return self.contexts is None

    def connection(self, name: str | None = None, version: str | None = None) -> SSL.Connection:
        """Make a connection for a client, where nothing is lacking; see `Contexts.connection_for`."""
        self.look()
        assert self.contexts is not None  # noqa: S101 - the caller has asked
        return self.contexts.connection_for(name, version)

    def validity(self) -> Sequence[Validity]:
        return () if self.contexts is None else self.contexts.validity

    def shown(self) -> Sequence[Mapping[str, Any]]:
        return () if self.contexts is None else self.contexts.shown

    def prepare(self) -> tuple[Contexts | None, list[object], str]:
        """Read the files for `commit`, and return their states before, and why what is in use is kept, if it is.

        Files that this process has lost the permission to read need not be read if they have not changed.
        """
        states = self._states()
        try:
            return self._make_contexts(), states, ""
        except TLSFileError as problem:
            is_in_use = self.contexts is not None
            is_as_before = is_in_use and problem.forbidden and states == self._seen
            return self.contexts, states, "" if is_as_before else self._why_kept(problem)

    def commit(self, contexts: Contexts | None, states: list[object], trouble: str = "") -> None:
        self._seen = states
        before, self.trouble = self.trouble, trouble
        # With the same certificates, clients keep their sessions.
        has_changed = _content(contexts) != _content(self.contexts)
        if has_changed:
            self.contexts = contexts
        if (has_changed or before) and not trouble and not self._is_copied:
            where = f"{self._section}{self._rule}"
            self._log.info("{where}: certificates reloaded", where=where)

    @override
    def _read(self) -> Callable[[], None]:
        contexts = self._make_contexts()
        return lambda: self.commit(contexts, self._seen)

    @override
    def _why_kept(self, problem: TLSFileError) -> str:
        if self.contexts is None:
            return f"{self._section}{problem.key}: {problem.what}; its clients are refused until it can be used"
        until = utc_time(min(row["not_after"] for row in self.shown()))
        return f"{super()._why_kept(problem)}, until {until}"


def _content(contexts: Contexts | None) -> object:
    return None if contexts is None else contexts.content
