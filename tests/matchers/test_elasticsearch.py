# The first is from nDPI's tests/cfgs/default/pcap/elasticsearch.pcap. The handshakes are made by hand after TcpHeader.java: of
# Elasticsearch 8.11, and of OpenSearch 2.0 with compression.
SAMPLES = (
    bytes.fromhex("4553 0000035a 000000000000000a 00 006bbb4b 0000009b 011e")
    + b"_xpack_security_authentication",
    bytes.fromhex("4553 00000031 0000000000000001 08 006c6d63 0000001a 00000016")
    + b"internal:tcp/handshake",
    bytes.fromhex("4553 00000031 0000000000000001 0c 081e8483 0000001a 00000016")
    + b"internal:tcp/handshake",
)
DECIDED_AT = 19
REFUSED = (
    (b"ET", 2), (bytes.fromhex("4553 ffffffff"), 3), (bytes.fromhex("4553 0000000c"), 6),
    (bytes.fromhex("4553 0000035a 80"), 7), (bytes.fromhex("4553 0000035a 000000000000000a 01"), 15),
    (bytes.fromhex("4553 0000035a 000000000000000a 10"), 15),
    (bytes.fromhex("4553 0000035a 000000000000000a 00 000f423f"), 19),
    (bytes.fromhex("4553 0000035a 000000000000000a 00 10"), 16),
)  # fmt: skip
