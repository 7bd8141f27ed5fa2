# Recorded from logger of util-linux 2.38.1 (plain, with --octet-count, with --rfc3164), and from Python's SysLogHandler.
SAMPLES = (
    b'<13>1 2026-11-20T09:29:23.964534+00:00 vm root - - [timeQuality tzKnown="1" isSynced="0"] hello\n',
    b'95 <13>1 2026-11-20T09:29:23.968219+00:00 vm root - - [timeQuality tzKnown="1" isSynced="0"] hello',
    b"<13>Nov 20 09:29:23 vm root: hello\n", b"<14>started\x00",
)  # fmt: skip
# Recorded from logger of util-linux 2.38.1 over UDP, in the new and in the old format.
DATAGRAMS = (
    bytes.fromhex(
        "3c31333e3120323032362d31312d32315430323a30383a30312e3638333539382b30303a30302076"
        "6d20726f6f74202d202d205b74696d655175616c69747920747a4b6e6f776e3d2231222069735379"
        "6e6365643d2230225d2068656c6c6f"
    ),
    bytes.fromhex("3c3133313e4e6f762032312030323a30383a303120766d20726f6f743a2068656c6c6f206f6c64"),
)
# The end of the priority decides.
DECIDED_AT = (4, 7, 4, 4)
MATCHED = (
    (b"999999 <191>1", 12),
    (b"<0>1", 3),
    # They are 0 to 191, without leading zeros.
    *(f"<{number}>".encode() for number in range(192)),
)
REFUSED = (
    (b"<192>", 4), (b"<200>", 4), (b"<00>", 3), (b"<>", 2), (b"<1 >", 3),
    # They have at most six digits, no leading zero, and one blank behind them.
    (b"0 <13>", 1), (b"1234567 <13>", 7), (b"95<13>", 3), (b"95  <13>", 4), (b"95 13", 4),
    # XML, Git and tinc begin with the same bytes.
    (b"<?xml version='1.0'?>", 2), (b"<stream:stream", 2), (b"0046git-upload-pack /", 1),
    (b"0 node 17.7\n", 1),
)  # fmt: skip
# The priority is in front.
MATCHED_DATAGRAMS = (b"<0>x", b"<191>")
REFUSED_DATAGRAMS = (b"<192>x", b"<01>x", b"<>", b"<1", b"5 <13>a", b"13>a", b"<")
