"""Matches the handshake of a Bolt client, as of Neo4j and Memgraph: its magic, ``6060b017``, behind which are four versions."""

from txmux.wire import PlainMatcher, Prefix

bolt = PlainMatcher(
    "bolt",
    "Bolt, as Neo4j speaks it",
    Prefix(b"\x60\x60\xb0\x17"),
    source='"Bolt Protocol handshake specification" (neo4j.com/docs/bolt), "Bolt identification"',
)
