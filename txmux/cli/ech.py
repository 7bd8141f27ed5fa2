"""`txmux ech`: makes keys of Encrypted ClientHello, and shows what is published."""

import argparse
import base64
import os
import re
import secrets
import sys
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from txmux.cli._output import Output
from txmux.client.tls.ech import KeyFile, read_key_file, read_key_files
from txmux.errors import MuxError
from txmux.net.tls.errors import TLSFileError
from txmux.rules.reading.parser import load
from txmux.telemetry.formatting import utc_time
from txmux.wire.ech import make_config
from txmux.wire.hpke import AES_128_GCM, CHACHA20_POLY1305

_NAME = re.compile(
    r"(?=.{1,254}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        metavar="new|show",
        choices=("new", "show"),
        help="new: make a key, and print the HTTPS record for DNS; show: what the keys of a rules file are, and which is published",
    )
    parser.add_argument(
        "subject",
        metavar="PUBLIC_NAME|FILE",
        help="new: the name that clients show to the network; show: a rules file",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="new: write the key to this file, which must not be there yet; without it, the key is printed",
    )


def run(arguments: argparse.Namespace) -> int:
    return _new(arguments) if arguments.action == "new" else _show(arguments)


def _new(arguments: argparse.Namespace) -> int:
    name, path = arguments.subject.lower().removesuffix("."), arguments.output
    if not _NAME.fullmatch(name):
        raise MuxError(
            f"{arguments.subject!r} is not the name of a host; write for example public.example.com"
        )
    taken = set() if path is None else _taken(path.parent)
    number = secrets.choice([free for free in range(256) if free not in taken] or range(256))
    private = X25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    config = base64.b64encode(
        make_config(number, public, (AES_128_GCM, CHACHA20_POLY1305), name)
    ).decode()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    pem += f"-----BEGIN ECHCONFIG-----\n{config}\n-----END ECHCONFIG-----\n"
    if path is None:
        print(pem, end="")
        print(_record(config), file=sys.stderr)
        return 0
    try:
        with open(path, "x", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
            file.write(pem)
    except OSError as error:
        raise MuxError(f"cannot write '{path}': {error.strerror}; name a new file") from None
    print(_record(config))
    return 0


def _taken(folder: Path) -> set[int]:
    """Return the numbers of the keys that are there already: by its number, a hello finds its key."""
    taken: set[int] = set()
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(TLSFileError, OSError):
            taken |= {key.config.id for key in read_key_file(path).keys}
    return taken


def _record(configs: str) -> str:
    return f'NAME. 300 IN HTTPS 1 . alpn="h2,http/1.1" ech="{configs}"'


def _show(arguments: argparse.Namespace) -> int:
    rules, output = load(arguments.subject), Output()
    listeners = [listener for listener in rules.listeners if listener.ech_keys is not None]
    if not listeners:
        raise MuxError(
            f"{arguments.subject}: no [listen] has ech_keys; add it, and make a key by 'txmux ech new PUBLIC_NAME'"
        )
    found = [(one.name, read_key_files(one.ech_keys)) for one in listeners if one.ech_keys]
    rows = [
        (_cells(name, file, number), "")
        for name, files in found
        for number, file in enumerate(files)
    ]
    output.table(rows, ("listener", "id", "public name", "written", "", "file"))
    for name, files in found:
        output.line()
        output.line(f"{name}: {_record(files[0].configs)}")
    return 0


def _cells(listener: str, file: KeyFile, number: int) -> tuple[str, ...]:
    configs = [key.config for key in file.keys]
    ids, names = (
        ", ".join(map(str, each))
        for each in zip(*((c.id, c.public_name) for c in configs), strict=True)
    )
    return (
        listener,
        ids,
        names,
        utc_time(file.made),
        "opens" if number else "published",
        str(file.path),
    )
