"""`txmux ech`: makes keys of Encrypted ClientHello, and shows what is published."""

import argparse
import base64
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from txmux.cli._output import Output
from txmux.cli.remote import command
from txmux.errors import MuxError
from txmux.features.ech.hello import make_config
from txmux.features.ech.hpke import AES_128_GCM, CHACHA20_POLY1305
from txmux.features.ech.keys import HOST_NAME, KeyFile, read_key_file, read_key_files
from txmux.net.tls.errors import TLSFileError
from txmux.rules.named_files import SUFFIXES
from txmux.rules.reading.parser import load
from txmux.telemetry.formatting import utc_time

_RECORD = 'NAME. 300 IN HTTPS 1 . alpn="h2,http/1.1" ech="{}"'
_Listeners: TypeAlias = list[dict[str, Any]]
_HEAD = "listener", "id", "public name", "written", "", "file"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="new|show", choices=("new", "show"), help="new: make a key, and print the HTTPS record for DNS; show: which keys there are, and which is published")  # fmt: skip
    parser.add_argument(
        "subject",
        metavar="PUBLIC_NAME|FILE",
        nargs="?",
        help="new: the name that clients show to the network; show: a rules file, or a file or folder of keys; without it, the rules of the running service",
    )
    parser.add_argument("--output", metavar="FILE", type=Path, help="new: write the key to this file, which must not be there yet; without it, the key is printed")  # fmt: skip
    command.configure(parser, seconds=10)


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "new":
        if arguments.json:
            arguments.parser.error("--json is only for show")
        return _new((arguments.subject or "").lower().removesuffix("."), arguments.output)
    if arguments.subject:
        listeners = _listeners(Path(arguments.subject))
        (command.write_json if arguments.json else _show)(listeners)
        return 0
    return command.run(
        arguments,
        lambda ask, _: _listeners(Path(ask("GET", "/api/status")["rules_path"])),
        lambda listeners, _: _show(listeners),
    )


def _new(name: str, path: Path | None) -> int:
    if not HOST_NAME.fullmatch(name):
        message = f"{name!r} is not the name of a host; write for example txmux ech new public.example.com"
        raise MuxError(message)
    taken = set() if path is None else _taken(path.parent)
    number = secrets.choice([*set(range(256)) - taken] or range(256))
    private = X25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    configs = make_config(number, public, (AES_128_GCM, CHACHA20_POLY1305), name)
    config = base64.b64encode(configs).decode()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    pem += f"-----BEGIN ECHCONFIG-----\n{config}\n-----END ECHCONFIG-----\n"
    record = _RECORD.format(config)
    if path is None:  # what is outside of its parts is not of the PEM file
        print(f"# {record}\n{pem}", end="")
        return 0
    try:
        # A folder that gives files its group is for that group.
        mode = 0o640 if path.absolute().parent.stat().st_mode & stat.S_ISGID else 0o600
        with open(path, "x", encoding="ascii", opener=partial(os.open, mode=mode)) as opened:
            opened.write(pem)
    except OSError as error:
        raise MuxError(f"cannot write '{path}': {error.strerror}; name a new file") from None
    print(record)
    return 0


def _taken(folder: Path) -> set[int]:
    """Return the numbers of the keys that are there already: by its number, a hello finds its key."""
    taken: set[int] = set()
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(TLSFileError):
            taken |= {key.config.id for key in read_key_file(path).keys}
    return taken


def _show(listeners: _Listeners) -> None:
    output = Output()
    rows = []
    for one in listeners:
        for key in one["keys"]:
            ids, names = ", ".join(map(str, key["ids"])), ", ".join(key["public_names"])
            shown = one["listener"], ids, names, key["written"], key["state"], key["file"]
            rows.append((shown, ""))
    output.table(rows, _HEAD)
    for one in listeners:
        output.line()
        output.line(f"{one['listener']}: {one['record'] or one['problem']}")


def _listeners(path: Path) -> _Listeners:
    named = _named(path)
    listeners: _Listeners = []
    for name, keys in named.items():
        one: dict[str, Any] = {"listener": name, "record": None, "keys": []}
        listeners.append(one)
        try:
            files = read_key_files(keys)
        except TLSFileError as problem:
            if len(named) == 1:
                raise
            one["problem"] = str(problem)  # of one owner, whose keys hide none of the others'
            continue
        one["record"], one["keys"] = _RECORD.format(files[0].configs), [*_keys(files)]
    return listeners


def _keys(files: Sequence[KeyFile]) -> Iterator[dict[str, Any]]:
    newer: set[int] = set()  # of two keys with one number, only the newer opens hellos
    for number, file in enumerate(files):
        ids = [key.config.id for key in file.keys]
        opens = "opens nothing" if newer.issuperset(ids) else "opens"
        newer.update(ids)
        yield {
            "ids": ids,
            "public_names": [key.config.public_name for key in file.keys],
            "written": utc_time(file.made),
            "state": opens if number else "published",
            "file": str(file.path),
        }


def _named(path: Path) -> Mapping[str, Path]:
    if path.is_dir() or path.suffix in SUFFIXES:
        return {"-": path}
    named = {
        one.name: one.more["ech_keys"] for one in load(path).listeners if "ech_keys" in one.more
    }
    if not named:
        message = f"{path}: no [listen] has ech_keys; add it, and make a key by 'txmux ech new PUBLIC_NAME'"
        raise MuxError(message)
    return named
