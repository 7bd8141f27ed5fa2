MATCHED = tuple((bytes([byte]), 1) for byte in range(256))
MATCHED_DATAGRAMS = (b"", b"\0", b"a" * 1500)
