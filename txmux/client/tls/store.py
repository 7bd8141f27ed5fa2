"""The certificates of a route that terminates TLS, read again when their files change."""

import errno
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.logger import Logger

from txmux.client.tls.contexts import Contexts
from txmux.files import read_bytes, state_at
from txmux.net.tls.errors import TLSFileError
from txmux.rules.model import TlsEnd
from txmux.telemetry.formatting import utc_time

_PAUSE = 1.0  # minimum seconds between two checks of the files
_PAUSE_OF_HELPER = 5.0  # the same where the helper checks them, while all clients wait


class CertificateStore:
    """Reads the files again when they have changed, which it checks when a client connects.

    Args:
        in_use: The files as another process of this service uses them, in place of those that cannot be read.
        is_copied: Whether `files` is needed, for other processes; what happens is not logged here then.

    Attributes:
        files: The files as they are in use.
        trouble: Why clients do not get the current certificates; empty if they do.

    Raises:
        TLSFileError: A file cannot be used.
    """

    _log = Logger()

    def __init__(
        self,
        end: TlsEnd,
        seconds: Callable[[], float],
        route: str,
        in_use: Mapping[Path, bytes] | None = None,
        *,
        is_copied: bool = False,
    ) -> None:
        self._end = end
        self._is_copied = is_copied
        self._seconds = seconds
        self._route = route
        self._files = [*end.files, *filter(None, (end.client_ca, end.client_crl))]
        self.trouble = ""
        self._pause, self._is_helper_silent = _PAUSE, False
        # Before reading, so that a change in between is noticed.
        self._seen = self._states()
        try:
            self._contexts = self._make_contexts()
        except TLSFileError as problem:
            if in_use is None:
                raise
            self._contexts = Contexts(end, in_use.__getitem__)
            self.trouble = self._kept(problem)
        self._looked_at = seconds()

    def _make_contexts(self) -> Contexts:
        if not self._is_copied:
            return Contexts(self._end)
        files: dict[Path, bytes] = {}

        def read(path: Path) -> bytes:
            data = files[path] = read_bytes(path)
            return data

        contexts = Contexts(self._end, read)
        contexts.files = files
        return contexts

    @property
    def is_helped(self) -> bool:
        """Whether the helper looks at the files, while this process waits."""
        return self._pause == _PAUSE_OF_HELPER

    @property
    def files(self) -> Mapping[Path, bytes]:
        return self._contexts.files

    def context(self) -> SSL.Context:
        now = self._seconds()
        if now - self._looked_at >= self._pause:
            self._looked_at = now
            states = self._states()
            if states != self._seen and not self._is_helper_silent:
                self._read(states)
        return self._contexts.default

    def look_again(self) -> None:
        """Check the files now, so that reports are right in a process without clients."""
        self._looked_at = -inf
        self.context()

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

    def prepare(self) -> tuple[Contexts, object, str]:
        """Read the files for `use_contexts`, and return their states before, and why what is in use is kept, if it is.

        Files that this process has lost the permission to read need not be read if they have not changed.
        """
        states = self._states()
        try:
            return self._make_contexts(), states, ""
        except TLSFileError as problem:
            is_as_before = problem.forbidden and states == self._seen
            return self._contexts, states, "" if is_as_before else self._kept(problem)

    def use_contexts(self, contexts: Contexts, states: object, trouble: str = "") -> None:
        self._seen = states
        before, self.trouble = self.trouble, trouble
        # With the same certificates, clients keep their sessions.
        has_changed = contexts.content != self._contexts.content
        if has_changed:
            self._contexts = contexts
        if (has_changed or before) and not trouble and not self._is_copied:
            self._log.info(
                "[route {route}] terminate_tls: certificates reloaded", route=self._route
            )

    def _read(self, states: object) -> None:
        self._seen = states
        try:
            self.use_contexts(self._make_contexts(), states)
        except TLSFileError as problem:
            self.trouble = self._kept(problem)
            if not self._is_copied:
                self._log.error("{trouble}", trouble=self.trouble)

    def _kept(self, problem: TLSFileError) -> str:
        until = utc_time(min(end for _, end in self.valid_until()))
        return f"[route {self._route}] {problem.key}: {problem.what}; what is in use is kept, until {until}"

    def _states(self) -> object:
        self._pause, before, self._is_helper_silent = _PAUSE, self._is_helper_silent, False
        states = [self._state_at(path) for path in self._files]
        if self._is_helper_silent and not before:
            self.trouble = f"[route {self._route}] terminate_tls: the helper that looks at the files does not answer"
            if not self._is_copied:
                self._log.error("{trouble}", trouble=self.trouble)
        elif before and not self._is_helper_silent:
            self.trouble = ""
        return states

    def _state_at(self, path: Path) -> object:
        try:
            state, is_helped = state_at(path)
        except OSError as problem:
            # Reading reports the error; a silent helper would not answer then, either.
            self._is_helper_silent |= problem.errno == errno.EPIPE
            return problem.errno
        if is_helped:
            self._pause = _PAUSE_OF_HELPER
        return state
