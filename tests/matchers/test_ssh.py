from tests.matchers.all_samples import MATCH, NEED_MORE, NO, Facts

OPENSSH = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"
# As OpenSSH, Paramiko, PuTTY and Go's library send it.
SAMPLES = (
    OPENSSH, b"SSH-2.0-paramiko_3.4.0\r\n", b"SSH-2.0-PuTTY_Release_0.81\r\n", b"SSH-2.0-Go\r\n",
)  # fmt: skip

MATCHED = (
    # The first four bytes of an identification string are enough.
    (OPENSSH, 4),
    (b"SSH-1.99-x\n", 4),
)
REFUSED = (
    (b"STLS", 2), (b"SSH 2.0", 4), (b"ssh-", 1),
)  # fmt: skip
LONGEST = b"SSH-2.0-".ljust(254, b"a") + b"\n"
VERDICTS = (
    # The byte after the software version decides, be it a blank or the end of the line; it may have dashes of its own.
    ("software=OpenSSH_*", OPENSSH, MATCH, 22), ("software=Go", b"SSH-2.0-Go\r\n", MATCH, 11),
    ("software=Go", b"SSH-2.0-Go\n", MATCH, 11), ("software=Go", b"SSH-2.0-Go", NEED_MORE, 10),
    ("software=a-b-c", b"SSH-2.0-a-b-c x\r\n", MATCH, 14),
    ({"software": "libssh*, G?"}, b"SSH-2.0-Go\r\n", MATCH, 11),
    ("software=libssh_*", OPENSSH, NO, 9), ("software=OpenSSH_8*", OPENSSH, NO, 17),
    ("software=*p2", OPENSSH, NO, 22), ("software=openssh_*", OPENSSH, NO, 9),
    # A line that is no identification string is a no at the byte that shows it.
    ("software=*", b"SSH--2.0", NO, 5), ("software=*", b"SSH-2.0 x", NO, 8),
    ("software=*", b"SSH-2.0-\r\n", NO, 9), ("software=*", b"SSH-2.0-a\x00b\r\n", NO, 10),
    ("software=*", b"SSH-2.0-a\xe9b\r\n", NO, 10), ("software=*", b"GET / HTTP/1.1\r\n", NO, 1),
    # It has at most 255 bytes.
    ("software=*", LONGEST, MATCH, 255), ("software=*", LONGEST[:-1] + b"aa\n", NO, 255),
)  # fmt: skip
TRIED = ("software=*", "software=OpenSSH_*,a?b", "software=x*y-?")
UNUSABLE = (("software=a,,b", "software: "),)
FACTS: Facts = (
    ("", OPENSSH, {"software": "OpenSSH_9.2p1"}),
    ("software=*", OPENSSH, {"software": "OpenSSH_9.2p1"}),
    ("", b"SSH-2.0-Open", {}),
    ("", b"GET /", {}),
)
