"""Values of any program, as txmux writes them: addresses, networks, times and weights."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import gcd, lcm
from pathlib import PurePath

from txmux.rules.model.networks import IPNetwork
from txmux.transport import bracketed, is_address

COMMON_NAME = (
    "the name in a certificate without subjectAltName, its common name, is taken there, and by txmux it is not; "
    "see that the server's certificate has one"
)
_BUNDLES = frozenset({"ca-bundle.crt", "ca-certificates.crt", "tls-ca-bundle.pem"})
_MOST_WEIGHT = 65535


def whole_weights(shares: Sequence[Fraction]) -> list[int]:
    """Return whole numbers with the same proportions, or nearly so where they would be too large."""
    most = lcm(*(share.denominator for share in shares))
    numbers = [int(share * most) for share in shares]
    numbers = [number // gcd(*numbers) for number in numbers]
    too_much = Fraction(max(numbers), _MOST_WEIGHT)
    return [max(1, round(n / too_much)) if too_much > 1 else n for n in numbers]


def is_public(file: str) -> bool:
    """Return whether these are the authorities of the system, which sign nothing with a common name only."""
    return not file or file.startswith("@") or PurePath(file).name in _BUNDLES


def milliseconds(number: int) -> str:
    return f"{number}ms" if number % 1000 else f"{number // 1000}s"


def without(network: IPNetwork, holes: Iterable[IPNetwork]) -> list[IPNetwork]:
    left = [network]
    for hole in holes:
        left = [piece for part in left for piece in _cut(part, hole)]
    return left


def _cut(network: IPNetwork, hole: IPNetwork) -> Iterable[IPNetwork]:
    if network.version != hole.version or not network.overlaps(hole):
        return [network]
    if network.prefixlen >= hole.prefixlen:
        return []
    return network.address_exclude(hole)  # type: ignore[arg-type] # of one version


def split_address(text: str, *, has_port: bool = False) -> tuple[str, str]:
    """Split an address into its host, without brackets, and its port, of which either may be empty.

    Args:
        text: The address, or the path of a UNIX socket, which is the host.
        has_port: Whether there always is a port, also behind an IPv6 address without brackets.
    """
    host, colon, port = text.rpartition(":")
    if text.startswith(("/", "unix:")) or not (has_port or (colon and not is_address(text))):
        return (text.removeprefix("[").removesuffix("]"), "")
    return host.removeprefix("[").removesuffix("]"), port


def place(host: str, port: str) -> str:
    """Write an address, or the path of a UNIX socket."""
    path = host.removeprefix("unix:")
    return f"unix:{path}" if path.startswith("/") else f"{bracketed(host)}:{port}"
