# Recorded from c104 2.2 (lib60870): it starts the transfer; then a station that tests the connection first, made by hand.
SAMPLES = (bytes.fromhex("680407000000"), bytes.fromhex("680443000000"))
DECIDED_AT = 6
REFUSED = (
    (b"hello", 2),
    # Numbered, an acknowledgement, and the answer of the other side.
    (bytes.fromhex("680e"), 2), (bytes.fromhex("680401"), 3), (bytes.fromhex("68040b"), 3),
    (bytes.fromhex("680407000001"), 6),
)  # fmt: skip
