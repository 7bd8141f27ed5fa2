"""The keys of Encrypted ClientHello of a listener, read again when their files change (PEM of RFC 9934)."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from typing_extensions import override

from txmux.classes import frozen
from txmux.features.ech.hello import EchKey, EchReader, read_configs
from txmux.files import names_in
from txmux.net.tls.errors import TLSFileError
from txmux.net.watched import FilesInUse, OnDisk, WatchedFiles
from txmux.rules.named_files import is_key_file
from txmux.telemetry.counting.counter_groups import ListenerCounts
from txmux.wire.cursor import MalformedError

RULE = "ech_keys"
HOST_NAME = re.compile(
    r"(?=.{1,254}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
    re.IGNORECASE,
)
"""What a public name has to be: clients pass over others (RFC 9849, section 4)."""

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.+?)-----END \1-----", re.DOTALL)


@frozen
class KeyFile:
    """A file with a key.

    Attributes:
        made: When it was written, in seconds since 1970.
        configs: Its ECHConfigList, in Base64.
    """

    path: Path
    made: float
    keys: tuple[EchKey, ...]
    configs: str


def read_key_file(path: Path, files: Mapping[Path, tuple[float, bytes]] | None = None) -> KeyFile:
    """Read a file with a private key and its configurations, or take it of `files`.

    Raises:
        TLSFileError: It cannot be used.
    """
    try:
        made, data = (OnDisk() if files is None else files)[path]
    except OSError as problem:
        raise _unreadable(path, problem) from None
    pem, line = _part(path, data, "PRIVATE KEY", "private key")
    try:
        private = load_pem_private_key(pem[0], None)
    except Exception:  # noqa: BLE001 - what a damaged key raises depends on its kind
        raise _wrong(path, "the private key is damaged", line) from None
    if not isinstance(private, X25519PrivateKey):
        raise _wrong(path, "the private key is not of X25519", line)
    pem, line = _part(path, data, "ECHCONFIG", "ECHCONFIG")
    encoded = b"".join(pem[2].split())
    try:
        configs = [*read_configs(base64.b64decode(encoded, validate=True))]
    except (binascii.Error, MalformedError):
        raise _wrong(path, "the ECHCONFIG is damaged", line) from None
    public = private.public_key().public_bytes_raw()
    keys = tuple(EchKey(config, private) for config in configs if config.public_key == public)
    if not keys:
        raise _wrong(path, "the ECHCONFIG has no configuration for the private key", line)
    for name in (key.config.public_name for key in keys):
        if not HOST_NAME.fullmatch(name):
            raise _wrong(path, f"the public name {name!r} is not the name of a host", line)
    return KeyFile(path, made, keys, encoded.decode())


def _part(path: Path, data: bytes, name: str, word: str) -> tuple[re.Match[bytes], int]:
    """Find the only part of a name, and its line."""
    parts = [found for found in _BLOCK.finditer(data) if found[1] == name.encode()]
    lines = [data[: found.start()].count(b"\n") + 1 for found in parts]
    if not parts:
        raise _wrong(path, f"no {word}, where each file has one (RFC 9934)")
    if parts[1:]:
        raise _wrong(path, f"a second {word}, where each file has one (RFC 9934)", lines[1])
    return parts[0], lines[0]


def _wrong(path: Path, what: str, line: int = 0) -> TLSFileError:
    place = f"'{path}', line {line}" if line else f"'{path}'"
    return TLSFileError(RULE, f"{place}: {what}; write a file as 'txmux ech new' does")


def _unreadable(path: Path, problem: OSError) -> TLSFileError:
    advice = "correct the path, or let the user that txmux runs as read it"
    return TLSFileError(RULE, f"cannot read '{path}': {problem.strerror}; {advice}", problem)


def key_paths(path: Path) -> list[Path]:
    """Return the files with keys: the path itself, or those in it if it is a folder.

    Raises:
        TLSFileError: The folder has none, or cannot be read.
    """
    try:
        names = names_in(path)
    except NotADirectoryError:
        return [path]
    except OSError as problem:
        raise _unreadable(path, problem) from None
    paths = [path / name for name in sorted(names) if is_key_file(name)]
    if not paths:
        raise _wrong(path, "the folder has no file *.pem or *.ech")
    return paths


def read_key_files(
    path: Path, files: Mapping[Path, tuple[float, bytes]] | None = None
) -> list[KeyFile]:
    """Read all keys, the newest, which is published, first."""
    keys = [read_key_file(one, files) for one in files or key_paths(path)]
    return sorted(keys, key=lambda file: file.made, reverse=True)


class EchKeys(WatchedFiles):
    """The keys of a listener; a `TLSFileError` if a file cannot be used.

    Args:
        path: A file, or a folder of files.
        seconds: The clock.
        may_lack: Whether that is no error.
        section: Where the rules name the files, in brackets.

    Attributes:
        made: What is in use, the newest first.
    """

    made: list[KeyFile] | None
    key = _rule = RULE
    _what = "keys"

    def __init__(
        self, path: Path, seconds: Callable[[], float], *, may_lack: bool = False, section: str = ""
    ) -> None:
        self._path = path
        super().__init__(seconds, section, [path], may_lack=may_lack)

    def reader(self, limit: int, counts: ListenerCounts | None = None) -> EchReader:
        """Return a reader of a client's first bytes, with the current keys."""
        self.look()
        return EchReader(
            {key.config.id: key for file in reversed(self.made or ()) for key in file.keys},
            limit,
            counts,
        )

    def shown(self) -> list[tuple[int, str, float]]:
        """Return the number and the public name of each key, and when it was written, the published one first."""
        configs = ((key.config, file.made) for file in self.made or () for key in file.keys)
        return [(config.id, config.public_name, made) for config, made in configs]

    @override
    def _paths(self) -> list[Path]:
        return key_paths(self._path)

    @override
    def _make(self, files: FilesInUse) -> list[KeyFile]:
        return read_key_files(self._path, files.files)

    @override
    def _why_kept(self, problem: TLSFileError) -> str:
        if self.made is None:
            return f"{self.section}{problem.key}: {problem.what}; hidden names stay hidden until it can be used"
        return super()._why_kept(problem)
