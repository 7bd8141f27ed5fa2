"""The `finger` matcher keeps the contract, and tells its clients from others."""

from txmux_finger import FingerMatcher

from txmux.testing import check_matcher

OTHERS = [
    # Each with the byte, counted from 1, at which it can no longer be Finger.
    (b"GET / HTTP/1.1\r\n", 4),
    (b"\x16\x03\x01\x02\x00\x01", 1),
    (b"EHLO example.com\r\n", 5),
    (b"alice\n", 6),
    (b"\r\r\n", 2),
    (b"/W\talice\r\n", 3),
    (b"a" * 600, 512),
]


def test_any_query() -> None:
    """Without options, every query is matched."""
    queries = [
        b"\r\n",
        b"/W\r\n",
        b"alice\r\n",
        b"/W alice\r\n",
        b"/W  alice@a.example@b.example\r\n",
    ]
    check_matcher(FingerMatcher(), queries, OTHERS)


def test_user() -> None:
    """``user=`` looks at the name, and says no at the first byte that no name has there."""
    check_matcher(
        FingerMatcher(),
        [b"alice\r\n", b"/W bob\r\n", b"bob@a.example\r\n"],
        [
            *OTHERS[1:2],
            (b"alf\r\n", 3),
            (b"alicia\r\n", 5),
            (b"bobby\r\n", 4),
            (b"bo@x\r\n", 3),
            (b"\r\n", 1),
        ],
        {"user": "alice,bob"},
    )
