"""The header section of an HTTP/2 request; a separate module, since hpack takes long to import."""

import re
from collections.abc import Iterable

from hpack import Decoder, HPACKError

from txmux.wire.cursor import MalformedError

_LARGEST_HEADER_LIST = 64 * 1024

# At most two changes of the table's size begin a header section (RFC 7541, section 4.2); more only cost time.
_TOO_MANY_UPDATES = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}")


def read_section(decoder: Decoder, section: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Read the fields of a header section with the state of its connection.

    Raises:
        MalformedError: It is none, or takes long to read.
    """
    if _TOO_MANY_UPDATES.match(section):
        raise MalformedError
    try:
        return decoder.decode(section, raw=True)
    except HPACKError:
        raise MalformedError from None


def decoded(section: bytes) -> dict[str, str]:
    """Decode a header section (RFC 7541), and check the form of a request (RFC 9113, section 8.3).

    Raises:
        MalformedError: It is not the header section of a request.
    """
    fields: dict[str, str] = {}
    for raw_name, raw_value in read_section(Decoder(_LARGEST_HEADER_LIST), section):
        name, value = bytes(raw_name).decode("latin-1"), bytes(raw_value).decode("latin-1")
        # One behind regular fields is malformed, too, but nginx serves the host in it.
        if name.startswith(":") and name in fields:
            raise MalformedError
        fields.setdefault(name, value)
    if ":method" not in fields:
        raise MalformedError
    return fields
