"""Configurations of other programs: each becomes rules without an error, or is refused in one line."""

from __future__ import annotations

import ast
from pathlib import Path

import tests.convert
from campaign.fuzz.files import no_files
from campaign.fuzz.target import Target, see
from tests.convert.converting import converted
from txmux_convert import Program
from txmux_convert.writer import ConvertError

_WORDS: dict[Program, tuple[str, ...]] = {
    "haproxy": (
        "\nlisten x\n", "\nfrontend x\n", "\nbackend x\n", "\ndefaults\n", "\nglobal\n", "\n bind ",
        "\n acl ", "\n use_backend ", "\n server a ", "\n tcp-request content ", " if ", " { ", " } ",
        "%[", "]",
    ),
    "nginx": (
        "stream {\n", "server { ", "upstream x { ", "map $ssl_preread_server_name $up {\n", " }\n",
        "; ", "listen 443; ", "proxy_pass ", "ssl_preread on; ", "geo $g { ",
        "split_clients $a $b { ", "~^",
    ),
    "sniproxy": (
        "listener 443 {\n", "table t {\n", "}\n", "proto http\n", "fallback ", "source ", "; ",
        "resolver { nameserver ::1 }\n", ".* *\n", "\\\\.", '"', "# ", "proxy_protocol\n",
    ),
    "sslh": (
        "listen: ( ", "protocols: ( ", "{ ", " } ", " ); ", 'name: "', 'host: "', 'port: "', '"; ',
        "regex_patterns: [ ", "sni_hostnames: [ ", "alpn_protocols: [ ", " ]; ", "DAEMON_OPTS=", "--",
    ),
    "stunnel": (
        "[a]\n", "accept = ", "connect = ", "cert = /x\n", "client = yes\n", "sni = a:*.b\n",
        "verify = 2\n", "CAfile = /x\n", "protocol = ", "redirect = 1\n", "include = ", "socket = ",
    ),
    "traefik": (
        "entryPoints:\n", "tcp:\n", "udp:\n", "  routers:\n", "  services:\n", "    a:\n", "rule: '",
        "HostSNI(`", "HostSNIRegexp(`", "`)", " && ", " || ", "!", "[tcp.routers.a]\n", "&x ", "*x",
        "address: ':1'\n",
    ),
}  # fmt: skip
_TESTS = Path(tests.convert.__path__[0])
_LEAST = 60


def _target_of(program: Program) -> Target:
    texts = _texts(program)

    def check(data: bytes) -> None:
        with no_files():
            try:
                converted(data, program)
            except ConvertError as error:
                see("\n" not in str(error))

    def seeds() -> list[bytes]:
        return [text.encode() for text in texts if len(text) > _LEAST or "\n" in text]

    pieces = {piece for text in texts if len(text) < _LEAST for piece in text.split()}
    words = sorted({*_WORDS[program], *(f"{piece} " for piece in pieces)})
    return Target(check, seeds, tuple(word.encode() for word in words), longest=2000)


def _texts(program: str) -> list[str]:
    """Return the texts in the tests of a program's conversion, of which many are configurations."""
    found = {
        node.value
        for file in sorted((_TESTS / program).glob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return sorted(found)


TARGETS = {f"convert_{program}": _target_of(program) for program in _WORDS}
