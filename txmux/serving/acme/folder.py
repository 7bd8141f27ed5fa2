"""The files of ``acme_folder``: the keys of accounts, a certificate with its key for each name, and the state of renewals."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from txmux.errors import MuxError
from txmux.files import open_safely
from txmux.net.tls.errors import TLSFileError
from txmux.net.tls.pem import read_authorities
from txmux.net.tls.self_signed import self_signed
from txmux.rules.model import Rules
from txmux.rules.model.route import acme_file
from txmux.rules.problems import Problem, RulesError

_OWN = timedelta(days=90)  # the validity of a self-signed certificate
_STATE = "state.json"
DAMAGED = (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound)
"""Errors of damaged certificates and keys, or of kinds that txmux does not make."""


@attrs.frozen
class ShownCertificate:
    """A certificate in the folder; times are in seconds since 1970."""

    pem: bytes = attrs.field(repr=False)
    names: tuple[str, ...]
    issuer: str
    begins: float
    ends: float
    is_self_signed: bool

    @classmethod
    def read(cls, pem: bytes) -> ShownCertificate:
        """Read a certificate and its key; raises one of `DAMAGED` if either is missing, or they do not belong together."""
        certificate = x509.load_pem_x509_certificate(pem)
        if certificate.public_key() != load_pem_private_key(pem, None).public_key():
            raise ValueError("the key is not that of the certificate")
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return cls(
            pem,
            tuple(names.get_values_for_type(x509.DNSName)),
            certificate.issuer.rfc4514_string(),
            certificate.not_valid_before_utc.timestamp(),
            certificate.not_valid_after_utc.timestamp(),
            certificate.issuer == certificate.subject,
        )


NO_CERTIFICATE = ShownCertificate(b"", (), "", 0.0, 0.0, is_self_signed=True)
"""For a name without a usable certificate."""


class AcmeFolder:
    """Reads and writes the files. Each is replaced atomically, and only its owner may read it.

    Args:
        owner: The user and group IDs of files that root makes.
    """

    def __init__(self, path: Path, owner: tuple[int, int] | None = None) -> None:
        self.path = path
        self._owner = owner if os.geteuid() == 0 else None

    def make(self, names: Iterable[str] = ()) -> None:
        """Make the folder, and change the owner of it and its files: the rules may have a new ``user``."""
        if not self.path.is_dir():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700)
        self.check()
        if os.geteuid() == 0:
            there, _ = open_safely(self.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if self._owner is not None:
                    os.fchown(there, *self._owner)
                    accounts = self.path.glob("account-*.key")
                    files = [*(acme_file(self.path, name) for name in names), *accounts]
                    for file in (*files, self.path / _STATE):
                        with suppress(OSError):
                            _give(file.name, there, *self._owner)
            finally:
                os.close(there)

    def check(self) -> None:
        """Raise an `OSError` if it is no folder, or other users may write to it."""
        mode = self.path.stat().st_mode
        if not stat.S_ISDIR(mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.path))
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            why = "others may write to it, too, so they could choose what clients are shown"
            raise OSError(errno.EPERM, why, str(self.path))

    def certificate(self, name: str) -> ShownCertificate:
        with suppress(OSError):
            return self._read(name)
        return NO_CERTIFICATE

    def _read(self, name: str) -> ShownCertificate:
        with suppress(FileNotFoundError, *DAMAGED):
            return ShownCertificate.read(acme_file(self.path, name).read_bytes())
        return NO_CERTIFICATE

    def write_certificate(self, name: str, pem: bytes) -> None:
        self._write(acme_file(self.path, name), pem)

    def sign_missing(self, names: Iterable[str], now: float) -> None:
        """Sign a certificate for each name without a valid one; an `OSError` if a file cannot be read."""
        for name in names:
            certificate = self._read(name)
            if certificate.is_self_signed and certificate.ends <= now:
                self.write_certificate(name, _self_signed(name, now))

    def account_key(self, directory: str) -> tuple[Path, bytes]:
        """Return the file and the PEM of the key of the account with an authority; a missing one is made."""
        path = self.path / f"account-{sha256(directory.encode()).hexdigest()[:12]}.key"
        with suppress(FileNotFoundError):
            return path, path.read_bytes()
        key = key_pem(ec.generate_private_key(ec.SECP256R1()))
        self._write(path, key)
        return path, key

    def state(self) -> dict[str, Any]:
        """Return the state that `write_state` has written; an empty one if the file is damaged or missing."""
        try:
            state = json.loads((self.path / _STATE).read_bytes())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def write_state(self, state: dict[str, Any]) -> None:
        self._write(self.path / _STATE, json.dumps(state, indent=1).encode())

    def _write(self, path: Path, data: bytes) -> None:
        new = path.with_name(f".{path.name}.new")
        try:
            with suppress(FileNotFoundError):
                new.unlink()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(new, flags, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
                if self._owner is not None:
                    os.fchown(file.fileno(), *self._owner)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError:
            with suppress(OSError):
                new.unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def make_first(rules: Rules, owner: tuple[int, int] | None, now: float) -> None:
    """Make the folder, and certificates for the names that have none, so that listeners can start; raises a `MuxError`."""
    if not rules.acme_names:
        return
    settings = rules.settings
    folder = AcmeFolder(settings.acme_folder, owner)
    try:
        if settings.acme_ca is not None:
            read_authorities(settings.acme_ca, "acme_ca")
    except TLSFileError as problem:
        if not problem.forbidden:  # otherwise it is reported when the authority is asked
            raise RulesError([settings.section.problem(str(problem), problem.key)]) from None
    try:
        folder.make(rules.acme_names)
        folder.sign_missing(rules.acme_names, now)
    except OSError as problem:
        raise MuxError(str(_unusable(rules, problem))) from None


def unusable_folder(rules: Rules) -> list[Problem]:
    """Return problems of the folder that do not depend on the user of the service."""
    try:
        AcmeFolder(rules.settings.acme_folder).check()
    except OSError as problem:
        if problem.errno not in {errno.ENOENT, errno.EACCES}:
            return [_unusable(rules, problem)]
    return []


def _unusable(rules: Rules, problem: OSError) -> Problem:
    settings = rules.settings
    message = f"cannot write '{problem.filename or settings.acme_folder}': {problem.strerror}; name a folder that the user of txmux may write to, and nobody else"
    return settings.section.problem(message, "acme_folder")


def _give(name: str, folder: int, user: int, group: int) -> None:
    """Change the owner of a file, unless it has other names or is a link, which another user may have made."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(name, flags, dir_fd=folder)
    try:
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            os.fchown(file, user, group)
    finally:
        os.close(file)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _self_signed(name: str, now: float) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    begin = datetime.fromtimestamp(now, timezone.utc) - timedelta(hours=1)
    certificate = self_signed(key, name, begin, begin + _OWN)
    return key_pem(key) + certificate.public_bytes(Encoding.PEM)
