"""Matches the request for an association that a DICOM client begins with.

The type of the PDU, its length, the version of the protocol, two bytes that are zero, and the first character of the title
of the application that is called.
"""

from txmux.wire import Cursor, Fields, PlainMatcher

_ASSOCIATE_REQUEST = b"\x01\x00"
_FIXED_PART = 2 + 2 + 16 + 16 + 32
_LONGEST_REQUEST = 1 << 20
_VERSION_1 = b"\x00\x01\x00\x00"


def _read_associate_request(cursor: Cursor) -> None:
    cursor.literal(_ASSOCIATE_REQUEST)
    cursor.number(4, _FIXED_PART, _LONGEST_REQUEST)
    cursor.literal(_VERSION_1)
    cursor.number(1, ord(" "), ord("~"))


dicom = PlainMatcher(
    "dicom",
    "DICOM, by the request for an association",
    Fields(_read_associate_request, longest=2 + 4 + len(_VERSION_1) + 1),
    source="DICOM PS3.8, section 9.3.2",
)
