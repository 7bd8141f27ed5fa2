"""The files of ``acme_folder``: the keys of accounts, a certificate with its key for each name, and the state of renewals."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.logger import Logger

from txmux.classes import frozen
from txmux.client.tls.client_certificates import alternative_names
from txmux.client.tls.contexts import Contexts
from txmux.errors import MuxError
from txmux.features.acme.reading import AcmeSettings, acme_file
from txmux.files import on_disk, open_safely, read_own, replace_file
from txmux.net.tls.errors import TLSFileError
from txmux.net.tls.pem import read_authorities
from txmux.net.tls.self_signed import self_signed
from txmux.rules.model import Route, Rules, Settings, TlsSettings
from txmux.rules.problems import Problem, RulesError

_OWN = timedelta(days=90)  # the validity of a self-signed certificate
_STATE = "state.json"
_RULE = "terminate_tls"
_LARGEST = 1 << 20
"""Bytes of a file."""
_log = Logger()


@frozen
class ShownCertificate:
    """A certificate in the folder; times are in seconds since 1970."""

    pem: bytes = attrs.field(repr=False)
    names: tuple[str, ...]
    issuer: str
    not_before: float
    not_after: float
    is_self_signed: bool

    @classmethod
    def read(cls, pem: bytes, path: Path = Path("the certificate")) -> ShownCertificate:
        """Load a certificate, its chain and its key, as listeners that serve them do.

        Args:
            pem: All three.
            path: Of their file, for messages.

        Raises:
            TLSFileError: Listeners would refuse them, or there are several certificates with keys.
        """
        first, *others = Contexts(TlsSettings((path,)), lambda _: pem).key_pairs
        if others:
            raise TLSFileError(_RULE, f"'{path}': a second private key; one belongs there")
        certificate = first.certificate.to_cryptography()
        return cls(
            pem,
            tuple(name for kind, name in alternative_names(certificate) if kind in {"DNS", "IP"}),
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
        with suppress(FileExistsError):
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
        with suppress(OSError, TLSFileError):
            return self.read(name)
        return NO_CERTIFICATE

    def read(self, name: str) -> ShownCertificate:
        """Return the certificate of a name; a `TLSFileError` if it is damaged, an `OSError` if its file cannot be read."""
        path = acme_file(self.path, name)
        with on_disk(path), suppress(FileNotFoundError):
            if path.is_dir():
                raise TLSFileError(_RULE, f"'{path}': a folder is in the place of this file")
            return ShownCertificate.read(read_own(path, _LARGEST), path)
        return NO_CERTIFICATE

    def write_certificate(self, name: str, pem: bytes) -> None:
        self._write(acme_file(self.path, name), pem)

    def sign_missing(
        self, names: Iterable[str], now: float, in_use: Mapping[str, bytes] = MappingProxyType({})
    ) -> dict[str, str]:
        """Write a certificate for each name without a valid one: that `in_use`, or else one signed here.

        Returns:
            By name, why its file had to give way.

        Raises:
            OSError: A file cannot be read.
        """
        damaged = {}
        for name in names:
            try:
                certificate = self.read(name)
            except TLSFileError as problem:
                certificate, damaged[name] = NO_CERTIFICATE, problem.what
            if certificate.is_self_signed and certificate.not_after <= now:
                path = acme_file(self.path, name)
                if path.is_dir():
                    path.rename(path.with_name(f"{path.name}.{now:.0f}"))
                self.write_certificate(name, in_use.get(name) or _self_signed(name, now))
        return damaged

    def remove_of_others(self, authors: Mapping[str, int]) -> set[str]:
        """Remove certificates that were issued for another author of their names, whose keys this one must not have; return the names."""
        state, others = self.state(), set()
        for name, author in authors.items():
            entry = state.get(name)
            if isinstance(entry, dict) and is_of_another(entry.get("author"), author):
                del state[name]
                others.add(name)
                with suppress(FileNotFoundError, IsADirectoryError):
                    acme_file(self.path, name).unlink()
        if others:
            self.write_state(state)
        return others

    def account_key(self, account: str) -> tuple[Path, bytes]:
        """Return the file and the PEM of the key of an account; a missing one is made."""
        path = self.path / f"account-{sha256(account.encode()).hexdigest()[:12]}.key"
        with suppress(FileNotFoundError):
            return path, read_own(path, _LARGEST)
        key = key_pem(ec.generate_private_key(ec.SECP256R1()))
        self._write(path, key)
        return path, key

    def state(self) -> dict[str, Any]:
        """Return the state that `write_state` has written; an empty one if the file is damaged or missing."""
        try:
            state = json.loads(read_own(self.path / _STATE, _LARGEST))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def write_state(self, state: dict[str, Any]) -> None:
        self._write(self.path / _STATE, json.dumps(state, indent=1).encode())

    def _write(self, path: Path, data: bytes) -> None:
        def prepare(number: int) -> None:
            if self._owner is not None:
                os.fchown(number, *self._owner)

        replace_file(path, data, prepare)


def make_first(
    rules: Rules,
    owner: tuple[int, int] | None,
    now: float,
    in_use: Mapping[str, bytes] = MappingProxyType({}),
    known: Collection[str] = (),
) -> str:
    """Make the folder, and certificates for the names that have no usable one, so that listeners can start.

    Args:
        rules: Name them.
        owner: The user and group IDs of files that root makes.
        now: The time, in seconds since 1970.
        in_use: By name, the certificates with their keys that a service which is running shows.
        known: The names that it has in this folder. One that cannot be used is an error only of the operator's further names.

    Returns:
        Why the folder cannot be used; empty if it can.

    Raises:
        MuxError: The folder, or `acme_ca`, cannot be used.
    """
    if not rules.managed:
        return ""
    folder = AcmeFolder(AcmeSettings.of(rules.settings).folder, owner)
    ends = [(route, tls) for route in rules.routes if (tls := route.terminate_tls)]
    of_units = [route for route, tls in ends if tls.may_lack]
    needed = {name for _, tls in ends if not tls.may_lack for name in tls.managed}
    for part, wrong in _of_authorities(rules):
        if needed and not known and part not in of_units:
            raise RulesError([wrong])
        # The authority is not asked until it is right.
        _log.error("{why}", why=str(rules.placed(wrong)))
    try:
        folder.make(rules.managed)
        others = folder.remove_of_others(authors_of(rules))
        in_use = {name: pem for name, pem in in_use.items() if name not in others}
        damaged = folder.sign_missing(rules.managed, now, in_use)
        for name, why in damaged.items():
            instead = "the one in use" if in_use.get(name) else "one that txmux has signed itself"
            _log.error("{why}; {instead} takes its place", why=why, instead=instead)
        if lost := {name: why for name, why in damaged.items() if not in_use.get(name)}:
            state = folder.state()
            for name, why in lost.items():
                before = state.get(name)
                state[name] = {**(before if isinstance(before, dict) else {}), "why": why}
            folder.write_state(state)
    except OSError as problem:
        if needed.difference(known):
            raise MuxError(str(_unusable(rules, problem))) from None
        return _why_unusable(folder.path, problem)
    return ""


def authors_of(rules: Rules) -> dict[str, int]:
    """Return the names that certificates are asked for, each with the user whose name it is; with 0 the operator's."""
    ends = [tls for route in rules.routes if (tls := route.terminate_tls)]
    # The operator's routes may share a name with a unit.
    ends.sort(key=lambda tls: tls.author is not None)
    return {name: tls.author or 0 for tls in ends for name in tls.managed}


def is_of_another(known: object, author: int) -> bool:
    # The operator may have all.
    return author != 0 and known is not None and known != author


def unusable(rules: Rules) -> Iterator[Problem]:
    """Yield what `make_first` would refuse, for any user of the service, and as warnings which files it would replace."""
    folder = AcmeFolder(AcmeSettings.of(rules.settings).folder)
    yield from (problem for _, problem in _of_authorities(rules))
    terminated = [(route, route.terminate_tls) for route in rules.routes if route.terminate_tls]
    try:
        folder.check()
        for route, name in [(route, name) for route, tls in terminated for name in tls.managed]:
            try:
                folder.read(name)
            except TLSFileError as problem:
                message = f"{problem.what}; clients see a certificate that txmux signs itself, until there is another one"
                yield attrs.evolve(route.section.problem(message, _RULE), warning=True)
    except OSError as problem:
        if problem.errno not in {errno.ENOENT, errno.EACCES}:
            yield _unusable(rules, problem)


def _of_authorities(rules: Rules) -> Iterator[tuple[Settings | Route, Problem]]:
    parts: list[Settings | Route] = [rules.settings, *rules.routes]
    for part in parts:
        ca = part.more.get("acme_ca")
        try:
            if ca is not None:
                # One that has expired matters only to servers whose certificate it signed.
                read_authorities(ca, "acme_ca")
        except TLSFileError as problem:
            if not problem.forbidden:  # otherwise it is reported when the authority is asked
                yield part, part.section.problem(str(problem), problem.key)


def _unusable(rules: Rules, problem: OSError) -> Problem:
    why = _why_unusable(AcmeSettings.of(rules.settings).folder, problem)
    message = f"{why}; name a folder that the user of txmux may write to, and nobody else"
    return rules.settings.section.problem(message, "acme_folder")


def _why_unusable(folder: Path, problem: OSError) -> str:
    return f"cannot write '{problem.filename or folder}': {problem.strerror}"


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
    # The renewal asks a day ahead, and clocks of clients are behind.
    begin = datetime.fromtimestamp(now, UTC) - timedelta(days=1, hours=1)
    certificate = self_signed(key, name, begin, begin + _OWN)
    return key_pem(key) + certificate.public_bytes(Encoding.PEM)
