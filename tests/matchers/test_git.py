from tests.matchers.all_samples import MATCH, NO, Facts


def pkt_line(text: bytes) -> bytes:
    return b"%04x%b" % (len(text) + 4, text)


# The first two are recorded from Git 2.39.5: ls-remote, and that with protocol.version=0 and a path that begins with ~.
SAMPLES = (
    b"0046git-upload-pack /team/project.git\x00host=127.0.0.1:45933\x00\x00version=2\x00",
    b"0031git-upload-pack ~user/x\x00host=127.0.0.1:37407\x00",
    pkt_line(b"git-receive-pack /team/project.git\0host=Git.Example.com\0"),
    pkt_line(b"git-upload-archive /project.git\0host=git.example.com\0"),
)
FETCH = pkt_line(b"git-upload-pack /team/project.git\0host=Git.Example.com.:9418\0\0version=2\0")
PATH_END = FETCH.index(b"\0") + 1
HOST_END = FETCH.index(b"\0\0") + 1
DECIDED_AT = (20, 20, 21, 23)
MATCHED = ((b"1FFFgit-upload-pack /", 20),)
REFUSED = (
    # Another length, another command, and a command that is longer than the packet are a no.
    (b"2000git-upload-pack /", 1), (b"0014git-upload-pack ", 4), (b"0000", 3), (b"00g0", 3),
    (b"0 node 17", 2), (b"0046git-upload-pack\0/", 20), (b"0046git-shell /", 9), (b"0046hello", 5),
    (b"0016git-upload-archive /", 22), (b"12 <13>", 3), (b"\x30\x0c\x02\x01\x01", 2),
)  # fmt: skip
NO_HOST = [
    (pkt_line(text), at)
    for text, at in (
        (b"git-upload-pack /x\0", 23), (b"git-upload-pack /x", 22),
        (b"git-upload-pack /x\0\0version=2\0", 24), (b"git-upload-pack /x\0hast=a\0", 25),
        (b"git-upload-pack /x\0host=\0", 29),
    )
]  # fmt: skip
UNICODE = pkt_line("git-upload-pack /é.git\0host=x\0".encode())
NO_UNICODE = pkt_line(b"git-upload-pack /\xe9\xff.git\0host=x\0")
VERDICTS = (
    # The NUL behind the path decides.
    ("path=/team/*", FETCH, MATCH, PATH_END),
    ("path=/other,/team/project.git", FETCH, MATCH, PATH_END), ("path=?user/*", SAMPLES[1], MATCH),
    # A path may end with the packet, and with a line feed that does not count.
    *(
        ("path=/x", pkt_line(text), MATCH)
        for text in (b"git-upload-pack /x", b"git-upload-pack /x\n", b"git-upload-pack /x\0")
    ),
    ("path=/t*x/", FETCH, NO, PATH_END), ("path=/tools/*", FETCH, NO, 23),
    ("path=/team", FETCH, NO, 26),
    # Paths are UTF-8, and bytes that are not do not disturb.
    ("path=/é.git", UNICODE, MATCH), ("path=/é*", UNICODE, MATCH),
    ("path=*.git", NO_UNICODE, MATCH), ("path=/é.git", NO_UNICODE, NO),
    # The NUL behind the host decides, or the end of the packet; the port, case and a final dot do not count.
    ("host=git.example.com", FETCH, MATCH, HOST_END),
    ("host=*.example.com path=/team/*", FETCH, MATCH, HOST_END),
    ("host=127.0.0.1", SAMPLES[0], MATCH),
    ("host=2001:db8::1", pkt_line(b"git-upload-pack /x\0host=[2001:db8::1]:9418\0"), MATCH),
    ("host=*", pkt_line(b"git-upload-pack /x\0host=a b:c\0"), MATCH),
    ("host=a", pkt_line(b"git-upload-pack /x\0host=a"), MATCH),
    # Another host is a no, and so is a request without one, as soon as that is known.
    ("host=example.com", FETCH, NO, HOST_END),
    *(("host=*", data, NO, at) for data, at in NO_HOST),
)  # fmt: skip
KEYS = (
    ("host=git.example.com", FETCH, "git.example.com"),
    ("host=git.example.com", FETCH[:PATH_END], None), ("host=git.example.com", b"GET /", ""),
)  # fmt: skip
FACTS: Facts = (
    ("", SAMPLES[0], {"host": "127.0.0.1", "path": "/team/project.git"}),
    ("", FETCH[: PATH_END - 1], {}),
    ("", FETCH[:PATH_END], {"path": "/team/project.git"}),
    ("", b"GET /", {}),
)
TRIED = ("host=*.example.com", "path=/team/*,/é", "host=* path=~/t.*")
TRIED_ON = (SAMPLES[1], FETCH, pkt_line(b"git-upload-pack /\xc3\xa9"))
UNUSABLE = (("host=a,,b", "host: "), ("path=a,,b", "path: "))
