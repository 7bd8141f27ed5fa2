"""ACLs and conditions of HAProxy (its configuration manual, chapter 7) as terms of txmux."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs

from txmux.rules.model import IPNetwork
from txmux_convert.haproxy.binds import BindContext, Secured, SideFiles
from txmux_convert.matching import LUA, branches, option, regex_text, searched
from txmux_convert.patterns import without_case
from txmux_convert.terms import ALWAYS, NEVER, SILENT, VERIFIED, Condition, InexpressibleError, Term

_LONGEST = 65536
_WITHIN = 256
_FETCH = re.compile(r"(?P<name>[\w.-]+)(?:\((?P<args>[^)]*)\))?(?P<converters>(?:,.*)?)")
_DERIVED = re.compile(r"(?P<name>.+)_(?P<method>beg|dir|dom|end|len|reg|sub)")
_NAMED = {
    "req.ssl_sni": ("tls", "sni"), "req_ssl_sni": ("tls", "sni"), "req.ssl_alpn": ("tls", "alpn"),
    "method": ("http", "method"), "path": ("http", "path"), "hdr": ("http", "host"),
    "req.hdr": ("http", "host"), "req.fhdr": ("http", "host"),
}  # fmt: skip
"""Tests of texts, with the matcher and the option that takes patterns of them."""

PREDEFINED: Mapping[str, Condition] = {
    "TRUE": ALWAYS,
    "FALSE": NEVER,
    # Routes are evaluated a last time at the timeout, which is what this waits for.
    "WAIT_END": ALWAYS,
    "REQ_CONTENT": (Term("any"),),
    "HTTP": (Term("http"),),
    "HTTP_1.0": (Term("http", (("version", "1.0"),)),),
    "HTTP_1.1": (Term("http", (("version", "1.1"),)),),
    "HTTP_2.0": (Term("http", (("version", "2"),)),),
    "METH_GET": (Term("http", (("method", "GET,HEAD"),)),),
    **{
        f"METH_{name}": (Term("http", (("method", name),)),)
        for name in ("CONNECT", "DELETE", "HEAD", "OPTIONS", "POST", "PUT", "TRACE")
    },
    "RDP_COOKIE": (Term("rdp", (("cookie", "*"),)),),
    "LOCALHOST": (Term(allowed=frozenset([ipaddress.ip_network("127.0.0.0/8")])),),
}
_VERSIONS = {300: "ssl3", 301: "1.0", 302: "1.1", 303: "1.2,1.3"}
"""By the ``client_version`` of a hello, in which TLS 1.3 passes for 1.2 (RFC 8446, section 4.1.2)."""

_SECURED = {"ssl_fc_alpn": "alpn", "ssl_fc_has_sni": "sni", "ssl_fc_sni": "sni"}
_CERTIFICATE = {
    "ssl_c_i_dn": "issuer",
    "ssl_c_s_dn": "subject",
    "ssl_c_used": "",
    "ssl_c_verify": "",
}

_VALUE = r"(?:[^,+\\]|\\.)*"
_NO_CN = rf"(?:[^C=][^=]*|C(?:[^N=][^=]*)?|CN[^=]+)={_VALUE}"
"""An attribute of a name (RFC 4514, sections 2.3 and 2.4), and one that is no CN; txmux's expressions cannot look ahead."""

_PLAIN_NAME = re.compile(r"[\w.@:/()-]+(?: +[\w.@:/()-]+)*", re.ASCII)
_PLAIN_METHODS = frozenset({"", "bool", "int", "ip"})
_TRUE_OR_FALSE = {
    *("rdp_cookie_cnt", "req.proto_http", "req.rdp_cookie_cnt", "req_proto_http"),
    *("ssl_c_used", "ssl_fc", "ssl_fc_has_sni"),
}
"""Tests that need no value."""


def read_acl(words: Sequence[str], bind: BindContext) -> Condition:
    """Read a test: what follows the name of an ``acl``, or stands in braces."""
    test = _criterion(words, bind.files)
    if test.converters == ("mqtt_is_valid",) and not test.values and _is_first_payload(test):
        return (Term("mqtt"),)
    needs_value = test.method != "found" and not test.name.startswith("always_")
    if needs_value and not test.values and test.name not in _TRUE_OR_FALSE:
        raise InexpressibleError(f"{words[0]} is compared with nothing")
    if test.name in PLACED:
        return placed(test, bind)
    if test.name in _SECURED:
        return tuple(_tls_terms(test, bind))
    if test.name in _CERTIFICATE:
        return _certificate(test, bind.secured)
    if test.name in _READERS:
        if "payload" not in test.name and (test.converters or test.method not in _PLAIN_METHODS):
            raise InexpressibleError(f"{words[0]} is changed before it is compared")
        if (
            "payload" in test.name
            and test.method in {"reg", "sub"}
            and not test.args.endswith(",0")
        ):
            bind.files.pending.append(
                f"{words[0]} -m {test.method}: HAProxy compares when all of these bytes are there, and txmux as soon "
                "as what has come fits; see that your clients send as many"
            )
        return _READERS[test.name](test)
    host = test.args.strip("\"'").lower() == "host"
    if test.name in _NAMED and (host or not test.name.endswith("hdr")):
        return tuple(_named(test))
    program = f"; {LUA}" if test.name.startswith("lua.") else ""
    raise InexpressibleError(f"{words[0]} has no counterpart{program}")


def _is_first_payload(test: Criterion) -> bool:
    return "payload" in test.name and test.args.startswith("0,")


def _tls_terms(test: Criterion, bind: BindContext) -> Iterator[Term]:
    if bind.secured is None:
        return
    if test.name == "ssl_fc_has_sni":
        yield Term(hello=(("sni", "*"),))
        return
    option = _SECURED[test.name]
    if option == "alpn" and test.method not in {"", "str"}:
        raise InexpressibleError(f"-m {test.method} of {test.name} has no counterpart")
    if option == "alpn":
        for value in test.values:
            yield Term(hello=((option, value.lower() if test.ignore_case else value),))
        return
    for term in _named(attrs.evolve(test, name="req.ssl_sni")):
        yield Term(hello=term.options)


def _certificate(test: Criterion, secured: Secured | None) -> Condition:
    """Read a test of the client's certificate; of a client without one, HAProxy says that nothing is wrong with it."""
    if test.converters:
        raise InexpressibleError(f"{test.name} is changed before it is compared")
    if test.name == "ssl_c_verify":
        if compared(test, range(256)) != [0]:
            raise InexpressibleError(
                "asks why a certificate is not valid; for all that are valid write ssl_c_verify 0"
            )
        is_known = secured is not None and not secured.lenient
        word = VERIFIED
    elif test.name == "ssl_c_used":
        if set(test.values) - {"1", "true"}:
            raise InexpressibleError("asks whether there is no certificate; write !ssl_c_used")
        is_known = secured is not None and not (secured.lenient or secured.client)
        word = "any"
    else:
        is_known = False
        word = _common_name(_CERTIFICATE[test.name], test)
    if secured is None or (not secured.client_ca and word != VERIFIED):
        return NEVER
    is_known |= not secured.client_ca
    return ALWAYS if is_known else (Term(certificate=frozenset({word})),)


def _common_name(kind: str, test: Criterion) -> str:
    """Return the word of ``client_cert`` for a test of the first CN of a name, which is the last one in its text."""
    if test.args.lower() != "cn" or test.method not in {"", "str"}:
        raise InexpressibleError(f"of {test.name}, only the whole CN has a counterpart")
    for value in test.values:
        if not _PLAIN_NAME.fullmatch(value):
            raise InexpressibleError(f"'{value}' may be written otherwise in a certificate")
    flag = "i" if test.ignore_case else ""
    values = "|".join(map(re.escape, test.values))
    return option(kind, rf"~(?:{_VALUE}[,+])*CN=(?{flag}:{values})(?:[,+]{_NO_CN})*")


def _criterion(words: Sequence[str], files: SideFiles) -> Criterion:
    match = _FETCH.fullmatch(words[0]) if words else None
    if match is None:
        raise InexpressibleError("is not a test")
    name, method, ignore_case = match["name"], "", False
    derived = _DERIVED.fullmatch(name)
    if derived and derived["name"] in {*_NAMED, *_SECURED}:
        name, method = derived["name"], derived["method"]
    rest = list(words[1:])
    values: list[str] = []
    while rest and rest[0].startswith("-"):
        flag = rest.pop(0)
        if flag == "--":
            break
        if flag == "-M":
            raise InexpressibleError("reads a map with -M; write what is in it")
        if flag == "-f" and rest:
            values += _listed(rest.pop(0), name, files)
        if flag in {"-m", "-u"} and rest:
            argument = rest.pop(0)
            method = argument if flag == "-m" else method
        ignore_case |= flag == "-i"
    converters = tuple(filter(None, match["converters"].split(",")))
    return Criterion(name, match["args"] or "", converters, method, ignore_case, (*values, *rest))


def _listed(path: str, name: str, files: SideFiles) -> list[str]:
    """Return the content of a file of values; one of networks is named in the rules, which read it at each reload."""
    if name == "src":
        return [f"@{path}"]
    try:
        return files.lines(path)
    except OSError as error:
        why = error.strerror or error
        raise InexpressibleError(f"reads {path}, which cannot be read here: {why}") from None


def _network(text: str) -> IPNetwork | str:
    if text.startswith("@"):
        return text
    address, slash, mask = text.partition("/")
    if ":" not in address and re.fullmatch(r"\d+(\.\d+){0,2}", address):
        # As inet_aton() reads it: missing parts are zero and stand before the last one.
        *first, last = address.split(".")
        address = ".".join([*first, *["0"] * (3 - len(first)), last]) if first else address
    try:
        return ipaddress.ip_network(f"{address}{slash}{mask}", strict=False)
    except ValueError:
        raise InexpressibleError(f"'{text}' is not a network") from None


def _version(test: Criterion) -> Condition:
    versions = compared(test, _VERSIONS, 100)
    if len(versions) == len(_VERSIONS):
        return (Term("tls"),)
    names = ",".join(_VERSIONS[version] for version in versions)
    return (Term("tls", (("version", names),)),) if names else NEVER


def _length(test: Criterion) -> Condition:
    lengths = compared(test, range(1024))
    if lengths == [0]:
        return (Term(SILENT),)
    least = min(lengths, default=0)
    if not least or lengths != list(range(least, 1024)):
        raise InexpressibleError(
            f"{test.name} asks for clients that have sent only so many bytes yet, and routes wait for the rest; "
            "for clients that say nothing, write 'silent' in [listen]"
        )
    if least == 1:
        return (Term("any"),)
    return (Term("regex", (("pattern", f"(?s:.{{{least}}})"), ("within", str(least)))),)


def _named(test: Criterion) -> Iterator[Term]:
    matcher, option = _NAMED[test.name]
    if set(test.converters) - {"lower", "upper"}:
        raise InexpressibleError(f"the converter {test.converters[0]} has no counterpart")
    folded = test.ignore_case or bool(test.converters)
    plain = []
    for value in ("",) if test.method == "found" else test.values:
        for pattern in _patterns(test.method or "str", value):
            if option in {"sni", "host"}:
                pattern = without_case(pattern)  # noqa: PLW2901 - the same pattern, written otherwise
            elif folded and pattern.startswith("~"):
                pattern = f"~(?i:{pattern[1:]})"  # noqa: PLW2901 - as above
            elif folded:
                body = re.escape(pattern).replace(r"\*", "(?s:.*)")
                pattern = f"~(?i:{body})"  # noqa: PLW2901 - the same pattern, written otherwise
            if pattern.startswith("~"):
                yield Term(matcher, ((option, pattern),))
            else:
                plain.append(pattern)
    if plain:
        yield Term(matcher, ((option, ",".join(plain)),))


def _patterns(method: str, value: str) -> list[str]:
    if method == "reg":
        return [f"~{_whole(part)}" for part in branches(value)]
    if method not in {"beg", "dom", "end", "found", "str", "sub"}:
        raise InexpressibleError(f"-m {method} has no counterpart")
    if set(value) & set("*?,~"):
        raise InexpressibleError(f"'{value}' is literal, and would be a pattern in txmux")
    forms = {
        "beg": ["{}*"],
        "dom": ["{}", "*.{}", "{}.*", "*.{}.*"],
        "end": ["*{}"],
        "found": ["*"],
        "str": ["{}"],
        "sub": ["*{}*"],
    }
    return [form.format(value) for form in forms[method]]


def _whole(pattern: str) -> str:
    """Write a pattern that is searched in a name as one that matches the whole name."""
    text = regex_text(pattern)
    ended = text.endswith("$") and not text.endswith("\\$")
    start = searched(text.removesuffix("$") if ended else text)
    return start if ended else f"{start}(?s:.*)"


def _payload(test: Criterion) -> Condition:
    """Read ``req.payload(OFFSET,LENGTH)``; length 0 means all bytes."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*,\s*(\d{1,5})\s*", test.args)
    if match is None:
        raise InexpressibleError(f"req.payload({test.args}) has no counterpart")
    hexadecimal, method = "hex" in test.converters, test.method or "bin"
    strange = set(test.converters) - {"hex", "lower", "upper"}
    if strange or (hexadecimal and len(test.converters) > 1):
        raise InexpressibleError(f"the converter {test.converters[0]} has no counterpart")
    folded = test.ignore_case or (bool(test.converters) and not hexadecimal)
    place = _Place(int(match[1]), int(match[2]), folded)
    if method == "found":
        least = max(place.length, 1)
        return (place.regex(f"(?s:.{{{least}}})", least),)
    if hexadecimal and method not in {"str", "beg"}:
        raise InexpressibleError(f"hex with -m {method} has no counterpart")
    if method == "reg":
        return tuple(map(place.pattern, test.values))
    data = [_data(value, hexadecimal=hexadecimal or method == "bin") for value in test.values]
    return tuple(term for value in data for term in place.terms(method, value))


def _data(value: str, *, hexadecimal: bool) -> bytes:
    if not hexadecimal:
        return value.encode("latin-1", "replace")
    try:
        return bytes.fromhex(value)
    except ValueError:
        raise InexpressibleError(f"'{value}' is not pairs of hex digits") from None


@attrs.frozen
class _Place:
    """Where bytes are compared; `folded` ignores case."""

    offset: int
    length: int
    folded: bool

    def terms(self, method: str, data: bytes) -> list[Term]:
        offset, length = self.offset, self.length
        if not data or (length and len(data) > length):
            return []
        text = regex_text(re.escape(data).decode("latin-1"))
        if method in {"bin", "str"}:
            if not length:
                raise InexpressibleError(
                    "compares all bytes there are, and more may be on their way"
                )
            if len(data) != length:
                return []
        elif method == "end" and length:
            offset += length - len(data)
        elif method == "sub":
            return [self.pattern(re.escape(data).decode("latin-1"))]
        elif method != "beg":
            raise InexpressibleError(f"-m {method} has no counterpart")
        if method == "beg" and len(data) < length:
            # HAProxy compares only when all bytes are there.
            return [self.regex(f"{self._fold(text)}(?s:.{{{length - len(data)}}})", length)]
        if self.folded and method != "bin":
            return [attrs.evolve(self, offset=offset).regex(self._fold(text), len(data))]
        place = (("offset", str(offset)),) if offset else ()
        return [Term("payload", (*place, ("hex", data.hex())))]

    def pattern(self, pattern: str) -> Term:
        return self.regex(self._fold(searched(regex_text(pattern))), self.length or _WITHIN)

    def _fold(self, text: str) -> str:
        return f"(?i:{text})" if self.folded else text

    def regex(self, pattern: str, length: int) -> Term:
        before = f"(?s:.{{{self.offset}}})" if self.offset else ""
        # After other bytes, the beginning is no longer that of the stream.
        text = pattern.removeprefix("^") if before else pattern
        if before and "^" in text.replace("[^", ""):
            raise InexpressibleError("has a ^ in the middle of a regular expression")
        within = str(min(self.offset + length, _LONGEST))
        return Term("regex", (("pattern", before + text), ("within", within)))


def _hello_type(test: Criterion) -> Condition:
    types = compared(test, range(32))
    if types not in ([1], []) and 0 in types:
        raise InexpressibleError("asks for more than a ClientHello")
    return (Term("tls"),) if 1 in types else NEVER


def _http(test: Criterion) -> Condition:
    if set(test.values) - {"1", "true"}:
        raise InexpressibleError("asks whether it is not HTTP; write !HTTP")
    return PREDEFINED["HTTP"]


def _cookies(test: Criterion) -> Condition:
    if test.values and compared(test, range(3)) != [1, 2]:
        raise InexpressibleError("counts cookies otherwise than by gt 0")
    return PREDEFINED["RDP_COOKIE"]


_READERS: Mapping[str, Callable[[Criterion], Condition]] = {
    "always_true": lambda _: ALWAYS,
    "always_false": lambda _: NEVER,
    "payload": _payload,
    "rdp_cookie_cnt": _cookies,
    "req.len": _length,
    "req.payload": _payload,
    "req.proto_http": _http,
    "req.rdp_cookie_cnt": _cookies,
    "req.ssl_hello_type": _hello_type,
    "req.ssl_ver": _version,
    "req_len": _length,
    "req_proto_http": _http,
    "req_ssl_hello_type": _hello_type,
    "req_ssl_ver": _version,
    "src": lambda test: (Term(allowed=frozenset(map(_network, test.values))),),
}
"""Readers of all tests but those of texts."""


_OPERATORS = {
    "eq": lambda value, low, high: low <= value <= high,
    "ge": lambda value, low, _: value >= low,
    "gt": lambda value, _, high: value > high,
    "le": lambda value, _, high: value <= high,
    "lt": lambda value, low, _: value < low,
}

PLACED = frozenset({"dst", "dst_port", "ssl_fc"})
"""Tests that depend on the bind line of a client."""


@attrs.frozen
class Criterion:
    """A parsed test; the method is that of ``-m``, or implied by the name, or empty."""

    name: str
    args: str
    converters: tuple[str, ...]
    method: str
    ignore_case: bool
    values: tuple[str, ...]


def _range(text: str, unit: int) -> tuple[int, int]:
    """Read a number, a range of them, or decimals, which are numbers times `unit`."""
    low, colon, high = text.partition(":")
    ends = (low, high) if colon else (low, low)
    numbers = []
    for end, absent in zip(ends, (0, 10**9), strict=True):
        if end and not re.fullmatch(r"\d{1,9}(\.\d{1,2})?", end):
            raise InexpressibleError(f"'{text}' is not a number")
        whole, _, fraction = end.partition(".")
        numbers.append(int(whole) * unit + int(fraction or 0) if end else absent)
    return numbers[0], numbers[1]


def compared(test: Criterion, numbers: Iterable[int], unit: int = 1) -> list[int]:
    """Return the numbers that pass a test."""
    values = list(test.values)
    compare = _OPERATORS[values.pop(0) if values and values[0] in _OPERATORS else "eq"]
    ranges = [_range(value, unit) for value in values]
    return [n for n in numbers if any(compare(n, low, high) for low, high in ranges)]


def placed(test: Criterion, bind: BindContext) -> Condition:
    """Decide a test by the ``bind`` alone, the same for every client."""
    if test.name == "ssl_fc":
        return ALWAYS if bind.secured else NEVER
    if test.name == "dst_port" and bind.port.isdecimal():
        return ALWAYS if compared(test, [int(bind.port)]) else NEVER
    if test.name == "dst":
        try:
            host = ipaddress.ip_address(bind.host)
            if not host.is_unspecified:
                networks = [ipaddress.ip_network(value, strict=False) for value in test.values]
                return ALWAYS if any(host in network for network in networks) else NEVER
        except ValueError:
            pass
    raise InexpressibleError(f"{test.name} is not known where the client comes in")
