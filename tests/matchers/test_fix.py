def logon(version: bytes, *fields: bytes) -> bytes:
    names = (b"34=1", b"49=BANZAI", b"52=20261120-16:00:00.000", b"56=EXEC")
    body = b"".join(field + b"\x01" for field in (b"35=A", *names, *fields))
    message = b"8=%b\x019=%d\x01%b" % (version, len(body), body)
    return message + b"10=%03d\x01" % (sum(message) % 256)


# Written after the FIX session layer, with the names of QuickFIX's examples.
SAMPLES = (
    logon(b"FIX.4.4", b"98=0", b"108=30", b"141=Y"), logon(b"FIX.4.0", b"98=0", b"108=30"),
    logon(b"FIX.4.2", b"98=0", b"108=30", b"553=user", b"554=password"),
    logon(b"FIXT.1.1", b"98=0", b"108=30", b"1137=9"),
)  # fmt: skip
# The end of the version decides.
DECIDED_AT = (10, 10, 10, 11)
REFUSED = (
    (b"9=102\x01", 1), (b"8:FIX.4.4\x01", 2), (b"8=fix.4.4\x01", 3), (b"8=FIX,4.4\x01", 6),
    (b"8=FIX.5.0\x01", 7),  # which says FIXT.1.1
    (b"8=FIX.4.5\x01", 9), (b"8=FIX.4.4|", 10), (b"8=FIXT.1.2\x01", 10), (b"8=FIXML", 6),
    (b"83 <13>1", 2),  # syslog
)  # fmt: skip
