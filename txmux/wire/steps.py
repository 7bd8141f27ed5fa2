"""What a server is asked before it gets its client's bytes: requests, and the answers that they must have."""

from collections.abc import Callable

from txmux.classes import frozen
from txmux.errors import MuxError


class RequestRefusedError(MuxError):
    """A server has given another answer than it must; the message says why, with the server as its subject."""


@frozen
class Step:
    """A request to a server.

    Attributes:
        request: Empty if the server speaks first.
        length_of: Returns the length of the answer with which some bytes begin, 0 as long as it is not complete; raises
            `RequestRefusedError` if it is another one.
        hint: What the request was, and what to do about another answer.
    """

    request: bytes
    length_of: Callable[[bytes], int]
    hint: str
