"""The fields with which the load balancers of the clouds say through which private link a client has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.wire.proxyprotocol.header import ProxyHeader

NAMES = ("vpc_endpoint", "psc_connection", "link_id")
"""All that can be told."""

_AWS = 0xEA
_GOOGLE = 0xE0
_AZURE = 0xEE
_ENDPOINT = b"\1"  # the subtype, in the first byte of the fields of AWS and of Azure


def told_by_clouds(header: ProxyHeader) -> Iterator[tuple[str, str]]:
    """Yield names to the fields of the clouds. One of another length or subtype than these has none.

    - Type ``EA`` of Amazon Web Services, subtype 1: the ID of the VPC endpoint, as text (Network Load Balancers guide, *Proxy
      protocol*).
    - Type ``E0`` of Google Cloud: the ID of the Private Service Connect connection, 8 bytes, big-endian (Virtual Private Cloud
      guide, *View consumer connection information*).
    - Type ``EE`` of Azure, subtype 1: the LINKID of the private endpoint, 4 bytes, little-endian (Private Link service overview,
      *Getting connection information using TCP proxy v2*).

    Returns:
        Names and values, as they are for the facts of a connection; text has one character a byte, as ISO 8859-1 decodes it.
    """
    aws = header.value_of(_AWS) or b""
    if aws[:1] == _ENDPOINT and aws[1:]:
        yield NAMES[0], aws[1:].decode("latin-1")
    google = header.value_of(_GOOGLE) or b""
    if len(google) == 8:
        yield NAMES[1], str(int.from_bytes(google, "big"))
    azure = header.value_of(_AZURE) or b""
    if azure[:1] == _ENDPOINT and len(azure) == 5:
        yield NAMES[2], str(int.from_bytes(azure[1:], "little"))
