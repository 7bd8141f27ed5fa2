"""The protocols that begin in the clear, by their names in rules."""

from collections.abc import Mapping

from txmux.wire.starttls.dialogue import ClearProtocol
from txmux.wire.starttls.ldap import LDAP
from txmux.wire.starttls.lines import FTP, IMAP, POP3, SMTP
from txmux.wire.starttls.xmpp import XMPP

PROTOCOLS: Mapping[str, ClearProtocol] = {
    "smtp": SMTP,
    "imap": IMAP,
    "pop3": POP3,
    "ftp": FTP,
    "xmpp": XMPP,
    "ldap": LDAP,
}
