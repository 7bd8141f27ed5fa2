"""For servers that txmux hands clients' sockets to: a Twisted endpoint, ``txmux:/run/x.sock``, and what it is made of."""

from txmux.adopt.endpoint import AdoptedTransport, AdoptingEndpoint
from txmux.adopt.receiving import HandedOver, NotGivenError, receive

__all__ = ["AdoptedTransport", "AdoptingEndpoint", "HandedOver", "NotGivenError", "receive"]
