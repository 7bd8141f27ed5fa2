"""How the servers of an ``haproxy.cfg`` are spoken to: by TLS, and with PROXY protocol headers."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from txmux.convert.haproxy.binds import address

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIXED = re.compile(r"str\((?P<name>[^()]*)\)")
_TLVS = {
    "authority": "authority",
    "cert-cn": "ssl",
    "crc32c": "crc32c",
    "ssl": "ssl",
    "unique-id": "unique-id",
}
SPEAKS: Mapping[str, str] = {"send-proxy": "v1", "send-proxy-v2": "v2"}
PARAMETERS = frozenset(
    {*SPEAKS, "alpn", "ca-file", "crt", "proxy-v2-options", "sni", "ssl", "verify", "verifyhost"}
)
"""Those that are read here."""

Keys = dict[str, str]
"""Keys of ``[backend]``, which are the same for all of its servers."""


def header(given: Mapping[str, str]) -> Keys:
    """Return the keys about the PROXY protocol header that a server with these parameters gets."""
    spoken = [SPEAKS[name] for name in given if name in SPEAKS]
    fields: list[str] = []
    if any(name.startswith("send-proxy-v2-ssl") for name in given):
        spoken.append("v2")
        fields.append("ssl")
    if not spoken:
        return {}
    if spoken[-1] == "v2":
        options = given.get("proxy-v2-options", "").split(",")
        fields += [_TLVS[name] for name in options if name in _TLVS]
    keys = {"proxy_protocol": spoken[-1]}
    return {**keys, "proxy_tlvs": ", ".join(dict.fromkeys(fields))} if fields else keys


def encryption(given: Mapping[str, str], place: str) -> tuple[Keys, str]:
    """Return the keys about the TLS that is spoken to a server, and what of it a person has to decide.

    Args:
        given: The server's parameters.
        place: Its address.
    """
    if "ssl" not in given:
        return {}, ""
    keys = {"tls": "yes"}
    sni = given.get("sni", "")
    fixed = _FIXED.fullmatch(sni)
    names = {n for n in (fixed["name"].strip("\"'") if fixed else "", given.get("verifyhost")) if n}
    if names:
        keys["tls_name"] = min(names)
    if given.get("ca-file", "@").startswith("@"):
        given = {**given, "ca-file": ""}
    for name, key in (
        ("ca-file", "tls_ca"),
        ("crt", "tls_client_certificate"),
        ("alpn", "alpn"),
    ):
        if given.get(name):
            keys[key] = given[name]
    return keys, _difference(given, names, sni if not fixed else "", place)


def _difference(given: Mapping[str, str], names: set[str], sni: str, place: str) -> str:
    if given.get("verify") == "none":
        return (
            "verify none: txmux always verifies the certificate of a server; name its authority in tls_ca, and in "
            "tls_name the name that it is for"
        )
    if sni:
        return f"sni {sni}: the name that is sent does not depend on the client; write tls_name"
    if len(names) > 1:
        return f"sni and verifyhost: the name that is sent is the one that is verified; these are {' and '.join(sorted(names))}"
    if not names and _is_address(place):
        return "HAProxy verifies no name there; write in tls_name which one the certificate is for"
    return ""


def _is_address(place: str) -> bool:
    host = (address(place) or (place, ""))[0]
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.startswith(("/", "unix@"))
    return True
