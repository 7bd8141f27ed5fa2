"""The names of DNS response codes (RFC 1035, section 4.1.1, RFC 2136 and RFC 6891)."""

_NAMES = {
    1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 6: "YXDOMAIN",
    7: "YXRRSET", 8: "NXRRSET", 9: "NOTAUTH", 10: "NOTZONE", 16: "BADVERS",
}  # fmt: skip


def code_name(code: int) -> str:
    return _NAMES.get(code, f"response code {code}")
