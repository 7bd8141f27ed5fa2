"""The header section of an HTTP/2 request; a separate module, since hpack takes long to import."""

import re

from hpack import Decoder, HPACKError

from txmux.wire.cursor import MalformedError

_LARGEST_HEADER_LIST = 64 * 1024

# At most two changes of the table's size begin a header section (RFC 7541, section 4.2); more only cost time.
_TOO_MANY_UPDATES = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}")


def decoded(section: bytes) -> dict[str, str]:
    """Decode a header section (RFC 7541), and check the form of a request (RFC 9113, section 8.3).

    Raises:
        MalformedError: It is not the header section of a request.
    """
    if _TOO_MANY_UPDATES.match(section):
        raise MalformedError
    try:
        listed = Decoder(_LARGEST_HEADER_LIST).decode(section, raw=True)
    except HPACKError:
        raise MalformedError from None
    fields: dict[str, str] = {}
    for raw_name, raw_value in listed:
        name, value = bytes(raw_name).decode("latin-1"), bytes(raw_value).decode("latin-1")
        # One behind regular fields is malformed, too, but nginx serves the host in it.
        if name.startswith(":") and name in fields:
            raise MalformedError
        fields.setdefault(name, value)
    if ":method" not in fields:
        raise MalformedError
    return fields
