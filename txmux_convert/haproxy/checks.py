"""The health checks of an ``haproxy.cfg`` (its configuration manual, chapters 4 and 5.2) as ``check``."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise

import attrs

from txmux.rules.model import LOCAL
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.checks import check
from txmux_convert.haproxy.lines import Proxy, duration, seconds
from txmux_convert.haproxy.servers import BackendDraft, ServerLine, header
from txmux_convert.matching import escaped, option
from txmux_convert.values import milliseconds
from txmux_convert.writer import ConfigLine, DraftSection

_INTER = "2s"
_LOST = {
    "addr": "it is at another address",
    "agent-check": "the state that an agent reports",
    "check-alpn": "it speaks a protocol by ALPN",
    "check-proto": "it speaks a protocol of HAProxy",
    "track": "it is that of another server",
}
_OF_PROTOCOL = "spop-check"
"""A check that only tests whether the server speaks a protocol."""

_SAME = ("check", "port", "check-ssl", "check-sni", "check-send-proxy")
_LONGEST = {"inter": _INTER, "rise": "2", "fall": "3"}
_COUNT = re.compile("[0-9]{1,4}")


def add_check(backend: BackendDraft, servers: Sequence[ServerLine]) -> None:
    proxy, section = backend.proxy, backend.section
    kinds = [line for line in proxy.all("option") if line.value.endswith(("chk", "-check"))]
    steps = [*proxy.all("http-check"), *proxy.all("tcp-check")]
    backend.use(*kinds, *steps, *proxy.all("timeout", "check"))
    live = [server for server in servers if not server.is_down]
    checked = [server for server in live if "check" in server.parameters]
    for server in live:
        if "agent-check" in server.parameters and "check" not in server.parameters:
            section.flag(server.line, "no counterpart of agent-check")
    if not checked:
        return
    _end_on_down(checked, section)
    first = checked[0]
    kind = kinds[-1] if kinds else None
    try:
        words = question(proxy, kind)
    except WeakerError as why:
        words = ["tcp"]
        message = f"check = tcp, which only connects: no counterpart of {why}"
        # Custom steps may distinguish a primary from a replica; a connection does not.
        only_protocol = kind is not None and kind.value == _OF_PROTOCOL
        (section.warn if only_protocol else section.flag)(kind or first.line, message)
    if kind:
        _note_difference(proxy, section, kind, f"check = {' '.join(words)}, which ")
    why_lost = _lost(live, only_connects=words == ["tcp"])
    if why_lost:
        section.flag(first.line, f"its check is left out: {why_lost}")
        return
    if "socks4" in first.parameters and "check-via-socks4" not in first.parameters:
        message = "check: HAProxy connects to the server itself, and txmux by the proxy"
        section.warn(first.line.number, message)
    if len(checked) < len(live):
        message = "check: HAProxy checks only some of these servers, and txmux all of them"
        section.warn(first.line.number, message)
    sent = {word.partition("=")[0] for word in words}
    words += [word for word in _target(first) if word.partition("=")[0] not in sent]
    _schedule(proxy, words, checked, section)
    text = " ".join(words)
    if any(server.is_anywhere for server in live):
        message = (
            f"check = {text} is left out: the server's address is another one for each client; if it is on this machine, "
            f"write 127.0.0.1 in place of {LOCAL}, and the check"
        )
        section.flag(first.line, message)
    else:
        section.add("check", text, first.line)


def _end_on_down(checked: Sequence[ServerLine], section: DraftSection) -> None:
    """Write ``end_on_down``, which is the same for all servers of a [backend]."""
    ending = [s for s in checked if "on-marked-down" in s.parameters]
    back = [s for s in checked if "on-marked-up" in s.parameters]
    for first in [*back, *ending][:1]:
        section.add("end_on_down", "backup" if back else "yes", first.line)
        if len(ending) < len(checked):
            message = "on-marked-down: HAProxy ends the connections to some of these servers, and txmux those to all"
            section.warn(first.line.number, message)


def _lost(live: Sequence[ServerLine], *, only_connects: bool) -> str:
    """Return why the servers cannot be checked as in HAProxy, or nothing."""
    for server in live:
        given = server.parameters
        for name, why in _LOST.items():
            if name in given:
                return f"{name}: {why}"
        if "check-send-proxy" in given and ("port" in given or not header(given)):
            return "check-send-proxy: its header is another one than that of clients"
    other_port = any({"port", "check-ssl"} & server.parameters.keys() for server in live)
    for name in _SAME:
        values = {server.line.value: server.parameters.get(name) for server in live}
        others_are_fine = name == "check" and only_connects and not other_port
        if len({*values.values()}) > 1 and not others_are_fine:
            each = ", ".join(
                f"{server} has {'none' if value is None else value or 'it'}"
                for server, value in values.items()
            )
            return f"servers of a [backend] have the same check, and these differ in {name}: {each}"
    return ""


def _target(server: ServerLine) -> list[str]:
    given = server.parameters
    words = [f"port={given['port']}"] if "port" in given else []
    if "check-ssl" in given and ("ssl" not in given or "port" in given):
        words.append("tls=yes")
        if "check-sni" in given and "ssl" not in given:
            words.append(option("sni", given["check-sni"]))
    return words


def _note_difference(proxy: Proxy, section: DraftSection, kind: ConfigLine, check: str) -> None:
    for line in proxy.all("http-check", "send-state"):
        section.warn(line, "has no counterpart: servers are not told their state")
    if kind.value == _TLS_HELLO:
        more = "wants a whole handshake, where HAProxy takes an alert: add sni=NAME if a server needs its name"
        section.flag(kind, check + more)


def _schedule(
    proxy: Proxy, words: list[str], checked: Sequence[ServerLine], section: DraftSection
) -> None:
    chosen: dict[str, str] = {}
    for name, usual in _LONGEST.items():
        values = {server.parameters.get(name, usual) for server in checked}
        chosen[name] = max(values, key=_seconds if name == "inter" else _count)
        if len(values) > 1:
            message = f"{name}: servers of a [backend] have the same; {chosen[name]} is the longest of them"
            section.warn(checked[0].line.number, message)
    inter = _seconds(chosen["inter"])
    connect, read = proxy.value("timeout", "connect"), proxy.value("timeout", "check")
    patience = inter
    if read:
        patience = min(inter, _seconds(connect.words[2])) if connect else inter
        says_hello = "tls=yes" in words and "check-ssl" not in checked[0].parameters
        if words[0] != "tcp" or says_hello:
            patience += _seconds(read.words[2])
    timeout = milliseconds(max(1, round(patience * 1000)))
    words += [f"interval={duration(chosen['inter'])}", f"timeout={timeout}"]
    for name in ("rise", "fall"):
        if chosen[name] != _LONGEST[name]:
            words.append(f"{name}={chosen[name]}")


def _seconds(text: str) -> float:
    return seconds(duration(text))


def _count(text: str) -> int:
    return int(text) if _COUNT.fullmatch(text) else 0


_TLS_HELLO = "ssl-hello-chk"
_KINDS = {
    # An anonymous bind of version 3, and its success (RFC 4511, sections 4.2 and 4.2.2).
    "ldap-check": (
        r"send=\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0 expect=\x0a\x01\0\x04"
    ),
    "pgsql-check": "postgres",
    "redis-check": "redis",
    "smtpchk": "smtp",
    _TLS_HELLO: "tcp tls=yes",
    "tcp-check": "tcp",
}

_REDIS = re.compile(r"(?i)(AUTH|INFO|PING|QUIT|ROLE|SELECT)\b[^\r\n]*\r\n")
_USUAL_ANSWERS = frozenset({"+OK", "+PONG"})
_SIMPLE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_EVERY_STATUS = range(100, 600)


class WeakerError(Exception):
    """There is only a weaker check; the message names what has no counterpart."""


@attrs.define
class _ProbeRequest:
    """An HTTP request and its destination."""

    method: str = "OPTIONS"
    path: str = "/"
    version: str = "HTTP/1.0"
    headers: list[tuple[str, str]] = attrs.field(factory=list)
    body: str = ""

    def raw(self) -> str:
        headers = list(self.headers)
        names = {name.lower() for name, _ in headers}
        if self.version == "HTTP/1.1" and "connection" not in names:
            headers.append(("Connection", "close"))
        if self.body and "content-length" not in names:
            headers.append(("Content-Length", str(len(self.body))))
        lines = [f"{self.method} {self.path} {self.version}", *(f"{n}: {v}" for n, v in headers)]
        return "\r\n".join([*lines, "", self.body])

    def words(self) -> list[str]:
        hosts = [value for name, value in self.headers if name.lower() == "host"]
        simple = self.method in _SIMPLE_METHODS and not self.body
        if simple and len(hosts) == len(self.headers) == 1:
            method = [] if self.method == "GET" else [option("method", self.method)]
            words = [*method, option("path", self.path), option("host", hosts[0])]
            if _is_accepted(["http", *words]):
                return words
        return [option("send", escaped(self.raw()))]


def _is_accepted(words: Sequence[str]) -> bool:
    """Return whether rules can have this check; not with the path ``*``, or without a host, for example."""
    try:
        check(" ".join(words))
    except InvalidValueError:
        return False
    return True


def question(proxy: Proxy, kind: ConfigLine | None) -> list[str]:
    name = kind.value if kind else "tcp-check"
    if name == "httpchk" and kind:
        return _http(kind, proxy.all("http-check"))
    if name == "tcp-check" and proxy.all("tcp-check"):
        return _send_expect(proxy.all("tcp-check"))
    if name == "mysql-check":
        users = [
            option("user", value)
            for word, value in pairwise(kind.words if kind else ())
            if word == "user"
        ]
        return ["mysql", *users]
    if name not in _KINDS:
        raise WeakerError(name)
    return _KINDS[name].split()


def _connected(steps: Iterable[ConfigLine]) -> list[str]:
    options: list[str] = []
    lines = [line for line in steps if line.value == "connect"]
    for line in lines:
        words = list(line.words[2:])
        while words:
            match words.pop(0):
                case "port" if words and words[0].isdecimal():
                    options.append(option("port", words.pop(0)))
                case "ssl":
                    options.append("tls=yes")
                case "default" | "linger":
                    pass
                case "comment" if words:
                    words.pop(0)
                case _:
                    raise WeakerError(str(line))
    if len(lines) > 1 and options:
        raise WeakerError(str(lines[1]))
    return options


def _http(kind: ConfigLine, steps: Sequence[ConfigLine]) -> list[str]:
    request = _ProbeRequest()
    match kind.words[2:]:
        case []:
            pass
        case [path]:
            request.path = path
        case [method, path, *rest]:
            request.method, request.path = method, path
            # An old form: headers after the version, as one word.
            version, *headers = " ".join(rest).split("\r\n")
            request.version = version or request.version
            request.headers = [
                (n, v.strip()) for n, _, v in (h.partition(":") for h in headers if h)
            ]
    expected: list[str] | None = None
    for line in steps:
        step = line.value
        if step == "send":
            _send(request, list(line.words[2:]))
        elif step == "expect" and expected is None:
            expected = _expected(list(line.words[2:]))
        elif step not in {"connect", "disable-on-404", "send-state", "comment"}:
            raise WeakerError(str(line))
    target = _connected(steps)
    if expected and expected[0].startswith("string="):
        text = expected[0].removeprefix("string=")
        return [option("send", escaped(request.raw())), option("expect", escaped(text)), *target]
    return ["http", *request.words(), *(expected or []), *target]


def _send(request: _ProbeRequest, words: list[str]) -> None:
    while words:
        name = words.pop(0)
        if name == "hdr" and len(words) > 1:
            request.headers.append((words.pop(0), words.pop(0)))
        elif name in {"meth", "uri", "ver", "body"} and words:
            field = {"meth": "method", "uri": "path", "ver": "version", "body": "body"}[name]
            setattr(request, field, words.pop(0))
        elif name == "comment" and words:
            words.pop(0)
        else:
            raise WeakerError(f"http-check send {name}")
    if "%[" in request.raw():
        raise WeakerError("what is put together for each check")


def _expected(words: list[str]) -> list[str]:
    negative = words[:1] == ["!"]
    words = words[negative:]
    statuses: set[int] = set(_EVERY_STATUS) if negative else set()
    match words:
        case ["status", text]:
            statuses = {n for part in text.split(",") for n in _statuses(part)}
        case ["rstatus", pattern]:
            with suppress(re.error):
                statuses = {n for n in _EVERY_STATUS if re.search(pattern, str(n))}
        case ["string", text] if text and not negative:
            return [f"string={text}"]
    if negative:
        statuses = set(_EVERY_STATUS) - statuses
    if not statuses:
        raise WeakerError(f"http-check expect {' '.join(words)}")
    return [f"expect={','.join(_ranges(sorted(statuses)))}"]


def _statuses(text: str) -> range:
    match = re.fullmatch("([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", text)
    if not match:
        raise WeakerError(f"http-check expect status {text}")
    return range(int(match[1]), int(match[2] or match[1]) + 1)


def _ranges(numbers: Sequence[int]) -> list[str]:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts: list[str] = []
    for low, high in runs:
        if low % 100 == 0 and high % 100 == 99:
            texts += [f"{hundred}xx" for hundred in range(low // 100, high // 100 + 1)]
        else:
            texts.append(f"{low}-{high}" if low != high else str(low))
    return texts


def _send_expect(steps: Sequence[ConfigLine]) -> list[str]:
    """Write one request and its answer; txmux's checks have no further steps."""
    target = _connected(steps)
    commands = [line.words[2] for line in steps if line.value == "send"]
    if len(commands) > 1 and all(map(_REDIS.fullmatch, commands)):
        return [*_redis(steps, commands), *target]
    sent, expected = "", ""
    for line in steps:
        match line.words[1:]:
            case ["comment" | "connect", *_]:
                pass
            case ["send", text] if not sent and not expected and "%[" not in text:
                sent = text
            case ["send-binary", text] if not sent and not expected:
                sent = _unhexed(text, line)
            case ["expect", "string", text] if not expected and text:
                expected = text
            case ["expect", "binary", text] if not expected and text:
                expected = _unhexed(text, line)
            case _:
                raise WeakerError(str(line))
    if not expected:
        if sent:
            raise WeakerError("tcp-check send without an answer")
        return ["tcp", *target]
    words = [option("send", escaped(sent))] if sent else []
    return [*words, option("expect", escaped(expected)), *target]


def _redis(steps: Iterable[ConfigLine], commands: Sequence[str]) -> list[str]:
    """Write several commands of Redis as one request, with the one answer that distinguishes servers."""
    answers = []
    for line in steps:
        match line.words[1:]:
            case ["expect", "string", text] if text:
                answers.append(text)
            case ["comment" | "connect", *_] | ["send", _]:
                pass
            case _:
                raise WeakerError(str(line))
    telling = [text for text in answers if text not in _USUAL_ANSWERS] or answers[-1:]
    if len(telling) != 1:
        raise WeakerError("several answers, of which each has to be there")
    return [option("send", escaped("".join(commands))), option("expect", escaped(telling[0]))]


def _unhexed(text: str, line: ConfigLine) -> str:
    try:
        return bytes.fromhex(text).decode("latin-1")
    except ValueError:
        raise WeakerError(str(line)) from None
