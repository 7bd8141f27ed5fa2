from txmux.control.gauges import COUNT
from txmux.net.channel.message import Field, Message
from txmux.net.channel.messages import MESSAGES

BY_KIND = {message.kind: message for message in reversed([*MESSAGES, COUNT])}


def made_up(kind: str, *fields: str, descriptors: int = 0, longest: int = 2**28) -> Message:
    """Return a row that is not in the table, whose fields and answer may be anything."""
    anything = Field(object)
    values = dict.fromkeys(fields, anything)
    return Message(kind, "one", "other", "", anything, descriptors, longest, longest, values)
