"""Pairs of protocols whose first bytes or datagrams can be the same, so that the order of the routes decides.

Real clients match both of a pair with a reason. For the other pairs, a search has found bytes that no known client sends.
"""

from txmux.classes import frozen
from txmux.detection.overlaps import DATAGRAM_OVERLAPS, OVERLAPS
from txmux.interfaces import Transport

_SHOWN = 32


@frozen
class Ambiguity:
    """Two matchers that both match some streams, or some datagrams; the route of the first should come first.

    Attributes:
        why: What they share, and what the order means for it; one sentence or two.
        always: What goes astray in the right order, too, for deployments that can do something about it.
    """

    first: str
    second: str
    why: str
    always: str = ""


AMBIGUITIES = (
    Ambiguity(
        "grpc",
        "http",
        "gRPC is HTTP/2, which http knows by its preface; after http, a grpc route would never be asked.",
    ),
    Ambiguity(
        "grpc",
        "http2",
        "gRPC is HTTP/2, which http2 knows by its preface; after http2, a grpc route would never be asked.",
    ),
    Ambiguity(
        "http2",
        "http",
        "http takes HTTP/2 with its preface, too; after http, an http2 route would never be asked.",
    ),
    Ambiguity(
        "icecast",
        "http",
        "A source of Icecast sends a request of HTTP; after http, an icecast route would never be asked.",
    ),
    Ambiguity(
        "cassandra",
        "rtmp",
        "The OPTIONS with which a client of Cassandra begins in version 3 is a possible time of RTMP; after rtmp, such a "
        "client would be taken for one, and before it one client of RTMP in 500 goes astray.",
    ),
    Ambiguity(
        "dicom",
        "mysqlx",
        "A request of DICOM with 256 to 511 bytes begins as the shortest message of MySQL's X Protocol; after mysqlx, such clients would "
        "go astray.",
        always="Clients of MySQL's X Protocol that begin with its shortest message, such as Connector/Python, wait for detect_timeout; "
        "give them a listener of their own.",
    ),
    Ambiguity(
        "socks5",
        "modbus",
        "A request of Modbus with the number 1281 begins with a whole greeting of SOCKS 5; after modbus, such a greeting "
        "would wait for more.",
    ),
    Ambiguity(
        "socks5",
        "mongodb",
        "The hello of a MongoDB client begins as a whole greeting of SOCKS 5 if it has exactly 261 bytes; after mongodb, each client "
        "of SOCKS 5 that offers no password would wait.",
        always="MongoDB clients whose hello has exactly 261 bytes, which their appName and platform decide, go to socks5; "
        "give them another appName, or a listener of their own.",
    ),
    Ambiguity(
        "mysqlx",
        "tns",
        "The first packet of an Oracle client begins as the shortest message of MySQL's X Protocol if it has exactly 256 bytes; after "
        "tns, clients of MySQL that begin with that message would wait.",
        always="Oracle clients whose first packet has exactly 256 bytes, which their connect data decide, go to mysqlx; give them a "
        "listener of their own.",
    ),
    Ambiguity(
        "memcached",
        "redis",
        "Text commands such as `get key` belong to both; most clients of Redis send arrays, which memcached leaves to "
        "redis, so only commands that people type go astray.",
    ),
    Ambiguity(
        "zookeeper",
        "redis",
        "The line `dump` is a four letter word of ZooKeeper and begins a command of Redis, where it would need a key.",
    ),
)

DATAGRAM_AMBIGUITIES = (
    Ambiguity(
        "rtp",
        "random",
        "Most of a packet of RTP looks random, and all of it if it is SRTP; after random, calls would go where tunnels do, and before "
        "it one tunnel in 600 goes astray.",
    ),
)
"""The pairs over UDP; those above are over TCP."""


_OVER = {
    Transport.TCP: (AMBIGUITIES, OVERLAPS),
    Transport.UDP: (DATAGRAM_AMBIGUITIES, DATAGRAM_OVERLAPS),
}


def ambiguities_over(transport: Transport) -> list[Ambiguity]:
    """List the pairs over a transport: those above, and those that a search has found besides."""
    explained, overlaps = _OVER[transport]
    pairs = {(pair.first, pair.second): pair for pair in explained}
    for (first, second), data in overlaps.items():
        shown = f"{data[:_SHOWN]}…" if len(data) > _SHOWN else data
        why = f"Both match what begins with {shown}, in hexadecimal digits, and this is the order that the reference recommends."
        pairs.setdefault((first, second), Ambiguity(first, second, why))
    return [*pairs.values()]
