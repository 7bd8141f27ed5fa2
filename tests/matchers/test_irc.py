# The first is recorded from Twisted 26.10's IRCClient; then what irssi and WeeChat, mIRC, and a web gateway send.
SAMPLES = (
    b"NICK alice\r\nUSER alice foo bar :None\r\n",
    b"CAP LS 302\r\nNICK alice\r\nUSER alice alice irc.example.com :Alice\r\n", b"CAP LS\r\n",
    b"PASS secret word\r\nNICK alice\r\nUSER alice 0 * :Alice A\r\n", b"USER alice 0 * :Alice A\r\nNICK alice\r\n",
    b"WEBIRC hunter2 gateway host.example.net 192.0.2.1 :secure\r\n",
)  # fmt: skip
LINES = [sample.partition(b"\r")[0] for sample in SAMPLES]
# The byte that ends it decides, be it CR or LF.
DECIDED_AT = tuple(sample.index(b"\r") + 1 for sample in SAMPLES)
MATCHED = (
    *((line + b"\n", len(line) + 1) for line in LINES),
    # Commands are written in any case.
    (b"nick alice\n", 11),
    (b"Cap req :sasl\r\n", 14),
    # A line has at most 512 bytes.
    (b"PASS " + b"x" * 506 + b"\n", 512),
)
REFUSED = (
    (b"CAPA\r\n", 4), (b"CAPABILITIES\r\n", 4), (b"CAP ACK :x\r\n", 5), (b"CAP LSX\r\n", 7), (b"NICK\r\n", 5),
    (b"NICK \r\n", 6), (b"NICK a b\r\n", 8), (b"NICK a\x00\r\n", 7), (b"USER alice\r\n", 11), (b"USER a b c\r\n", 11),
    (b"PASS\r\n", 5), (b"PING x\r\n", 2), (b"QUIT\r\n", 1), (b"POST / HTTP/1.1\r\n", 2), (b":alice NICK bob\r\n", 1),
    b"PASS " + b"x" * 600 + b"\n",
)  # fmt: skip
