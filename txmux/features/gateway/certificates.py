"""Certificates of Secrets and ConfigMaps, as files that the service reads."""

import base64
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from txmux.features.gateway.cluster import Key, key_of
from txmux.files import replace_file
from txmux.net.tls.errors import TLSFileError
from txmux.net.tls.pem import read_authorities, read_key_pairs
from txmux.wire.jsontext import MISSHAPEN

_MODE = 0o600
_LONGEST, _DIGITS = 150, 32  # of a file's name
_TYPE = "kubernetes.io/tls"


class SecretFiles:
    """Keeps files with certificates and their keys in a folder that no other user reads.

    Their names say what is in them: the service reads a file again when its rules name another one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._problems: dict[tuple[object, Key], tuple[str, str]] = {}  # of a version
        self._contents: dict[str, bytes] = {}
        self._parts: dict[str, Sequence[str]] = {}  # by a path, those of what is remembered of it
        self._used: set[Path] = set()

    def remembered(self, kind: str, namespace: str, only: str) -> dict[Key, Any]:
        """Return the Secrets or ConfigMaps of a namespace as their newest files have them, for when no others are known."""
        remembered = {}
        prefix = "ca_" * (kind == "ConfigMap") + f"{namespace}_"
        with suppress(OSError):
            for path in sorted(self._folder.glob(f"{prefix}{only or '*'}_*.pem"), key=_age):
                name = path.stem.removeprefix(prefix).rpartition("_")[0]
                content = path.read_bytes()
                # How they were divided is lost; together, they are what was written.
                parts = [*map(base64.b64encode, content.partition(b"\n")[::2])]
                data = dict(zip(("tls.crt", "tls.key"), parts, strict=True))
                if kind == "ConfigMap":
                    data = {"ca.crt": content}
                remembered[namespace, name] = {
                    "type": _TYPE,
                    "metadata": {
                        "namespace": namespace,
                        "name": name,
                        "resourceVersion": path.stem,
                    },
                    "data": {key: value.decode() for key, value in data.items()},
                }
        return remembered

    def problem(self, secret: Any) -> str:
        return self._problem(secret, _problem_of)

    def authority_problem(self, config_map: Any) -> str:
        return self._problem(config_map, _problem_of_authority)

    def _problem(self, thing: Any, find: Callable[[Any], str]) -> str:
        key, version = (find, key_of(thing)), str(thing["metadata"].get("resourceVersion"))
        judged_version, problem = self._problems.get(key, (None, ""))
        if judged_version != version:
            problem = find(thing)
            self._problems[key] = version, problem
        return problem

    def certificate(self, secret: Any) -> str:
        return self._path("_".join(key_of(secret)), _content(secret))

    def bundle(self, config_maps: Sequence[Any]) -> str:
        """Return the path of a file with the authorities of ConfigMaps, which can be used."""
        parts = [
            self._path("_".join(("ca", *key_of(its))), _authorities(its)) for its in config_maps
        ]
        if len(parts) == 1:
            return parts[0]
        path = self._path("ca", b"\n".join(map(_authorities, config_maps)))
        self._parts[path] = parts
        return path

    def _path(self, name: str, content: bytes) -> str:
        digest = sha256(content).hexdigest()[:_DIGITS]
        path = str(self._folder / f"{name[:_LONGEST]}_{digest}.pem")
        self._contents[path] = content
        return path

    def write(self, paths: Collection[str]) -> None:
        """Write the files of these paths; raises `OSError`."""
        self._parts = {path: parts for path, parts in self._parts.items() if path in paths}
        paths = {*paths, *chain.from_iterable(self._parts.values())}
        if paths:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
        self._contents = {path: self._contents[path] for path in paths}
        self._used = set(map(Path, paths))
        for path in self._used:
            content = self._contents[str(path)]
            with suppress(FileNotFoundError):
                if path.read_bytes() == content:
                    continue
            replace_file(path, content, lambda number: os.fchmod(number, _MODE))

    def remove_others(self) -> None:
        """Remove the files of Secrets that are no longer used."""
        with suppress(FileNotFoundError):
            for path in {*self._folder.glob("*.pem")} - self._used:
                path.unlink()


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


def _content(secret: Any) -> bytes:
    data = secret["data"]
    return b"\n".join(
        base64.b64decode(data[name], validate=True) for name in ("tls.crt", "tls.key")
    )


def _authorities(config_map: Any) -> bytes:
    return str(config_map["data"]["ca.crt"]).encode()


def _problem_of_authority(config_map: Any) -> str:
    name = f"ConfigMap {'/'.join(key_of(config_map))}"
    try:
        content = _authorities(config_map)
        read_authorities(Path(name), "ca.crt", lambda _: content)
    except MISSHAPEN:
        return f"{name} has no ca.crt"
    except TLSFileError as problem:
        return str(problem)
    return ""


def _problem_of(secret: Any) -> str:
    name = f"Secret {'/'.join(key_of(secret))}"
    if secret.get("type") != _TYPE:
        return f"{name} is not of the type {_TYPE}"
    try:
        content = _content(secret)
    except MISSHAPEN:
        return f"{name} has no tls.crt and tls.key in base64"
    try:
        pairs = read_key_pairs("tls.crt", [Path(name)], lambda _: content)
    except TLSFileError as problem:
        return str(problem)
    return "" if pairs else f"{name} has no certificate"
