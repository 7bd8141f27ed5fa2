from tests.matchers.all_samples import MATCH, NO
from tests.matchers.asking import from_hex

# Recorded from Net-SNMP 5.9.3: snmpget, snmpwalk with version 2c, snmpget with version 3, snmptrap.
DATAGRAMS = from_hex(
    "302902010004067075626c6963a01c020430968a52020100020100300e300c06082b060102010101000500",
    "30260201010406733363726574a119020469aad9fb020100020100300b300906052b060102010500",
    "303e020103301102042334da67020300ffe30401040201030410300e040002010002010004000400"
    "0400301404000400a00e0204600f65220201000201003000",
    "304402010104057472617073a738020422b98b1b020100020100302a300f06082b06010201010300"
    "430313ca8a3017060a2b06010603010104010006092b0601060301010501",
    "302602010004057472617073a41a06072b06010401bf0840047f0000010201000201004301013000",
)


V1 = bytes.fromhex("3018 020100 0406 7075626c6963 a00b 020101 020100 020100 30")
# Versions, kinds of requests and all lengths count.
MATCHED_DATAGRAMS = (
    # Lengths may take more bytes than they need.
    bytes.fromhex("3082 0019 020100 0406 7075626c6963 a081 0b 020101 020100 020100 3000"),
    V1 + b"\0",
)
REFUSED_DATAGRAMS = (
    V1,
    V1 + b"\0\0",
    V1.replace(b"\xa0", b"\xa2") + b"\0",  # a response
    V1.replace(b"\xa0", b"\xa5") + b"\0",  # of version 2 only
    V1.replace(b"\2\1\0\4", b"\2\1\2\4") + b"\0",
    DATAGRAMS[1].replace(b"\xa1", b"\xa4"),  # of version 1 only
    DATAGRAMS[2][:-1],
    b"\x31" + DATAGRAMS[0][1:],
    bytes.fromhex("300c 020103 3007 020101 020101 0400"),
    # LDAP without a connection (RFC 1798) begins alike.
    bytes.fromhex("300c 020101 6007 020103 0400 8000"),
)
# The community is a secret, so the version alone is learnt; version 3 has none.
DATAGRAM_FACTS = tuple(
    ("", datagram, {"version": version})
    for datagram, version in zip(DATAGRAMS, ("1", "2c", "3", "2c", "1"), strict=True)
)
DATAGRAM_VERDICTS = tuple(
    ("community=pub*,s3cret", datagram, verdict)
    for datagram, verdict in zip(DATAGRAMS, (MATCH, MATCH, NO, NO, NO), strict=True)
)
