"""Certificates of Secrets, as files that the service reads."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from OpenSSL import SSL

from txmux.features.gateway.cluster import Key, key_of
from txmux.files import replace_file
from txmux.net.tls.errors import TLSFileError
from txmux.net.tls.pem import read_key_pairs
from txmux.wire.jsontext import MISSHAPEN

_MODE = 0o600


class SecretFiles:
    """Keeps files with certificates and their keys in a folder that no other user reads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._problems: dict[Key, tuple[str, str]] = {}  # by Secrets, of a version
        self._used: set[Path] = set()

    def path(self, key: Key) -> str:
        # No name has an underscore in it.
        return str(self._folder / f"{'_'.join(key)}.pem")

    def problem(self, secret: Any) -> str:
        """Return why a Secret cannot be used by the service; empty if it can."""
        key, version = key_of(secret), str(secret["metadata"].get("resourceVersion"))
        known, problem = self._problems.get(key, (None, ""))
        if known != version:
            problem = _problem_of(secret)
            self._problems[key] = version, problem
        return problem

    def write(self, secrets: Mapping[Key, Any]) -> None:
        """Have a file for each Secret; raises `OSError`."""
        if secrets:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
        self._used = set()
        for key, secret in secrets.items():
            path = Path(self.path(key))
            self._used.add(path)
            content = _content(secret)
            with suppress(FileNotFoundError):
                if path.read_bytes() == content:
                    continue
            replace_file(path, content, lambda number: os.fchmod(number, _MODE))

    def remove_others(self) -> None:
        """Remove the files of Secrets that are no longer used."""
        with suppress(FileNotFoundError):
            for path in {*self._folder.glob("*.pem")} - self._used:
                path.unlink()


def _content(secret: Any) -> bytes:
    data = secret["data"]
    return b"\n".join(
        base64.b64decode(data[name], validate=True) for name in ("tls.crt", "tls.key")
    )


def _problem_of(secret: Any) -> str:
    name = f"Secret {'/'.join(key_of(secret))}"
    if secret.get("type") != "kubernetes.io/tls":
        return f"{name} is not of the type kubernetes.io/tls"
    try:
        content = _content(secret)
    except MISSHAPEN:
        return f"{name} has no tls.crt and tls.key in base64"
    try:
        pairs = read_key_pairs("tls.crt", [Path(name)], lambda _: content)
        for pair in pairs:
            pair.use_in(SSL.Context(SSL.TLS_METHOD), "tls.crt")
    except TLSFileError as problem:
        return str(problem)
    return "" if pairs else f"{name} has no certificate"
