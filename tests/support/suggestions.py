"""What messages about a rules file say to write, put into that file."""

import re
from collections.abc import Iterator, Sequence

import attrs

from txmux.rules.problems import Problem
from txmux.rules.reading.sections import TABLES

HINT = re.compile(r"\b(?:[wW]rite|did you mean|add|as in)\b")

_PLACEHOLDERS = {
    "CERTIFICATE.pem": "c.pem", "KEY.pem": "k.pem", "NETWORKS": "10.0.0.0/8", "HOST:PORT": "192.0.2.7:22",
    "ADDRESS:PORT": "192.0.2.7:4043", "[V6]": "[2001:db8::7]", "PORT": "4044", "ADDRESS": "192.0.2.7",
    "PROTOCOL": "ssh", "FILE": "/x.pem", "NUMBER": "3", "NAME": "a", "HOST": "192.0.2.7", "TRUST-DOMAIN/PATH": "a/b",
    "TEXT": "x", "URL": "http://127.0.0.1:8500",
}  # fmt: skip
_PLACEHOLDER = re.compile(rf"(?<![A-Z-])(?:{'|'.join(map(re.escape, _PLACEHOLDERS))})(?![A-Z_-])")
_ASIDE = re.compile(r" \((?:there are|possible are|[^()]* takes? ).*$| \([^()]*\)$")
_FOR_EXAMPLE = re.compile(
    r"(?:for UDP )?(?:write|did you mean|add|as in) (?:for example |(?:it|them|one|bytes|bytes per second|a duration|text)"
    r"(?: such)?(?: first)?,? as (?:an? \w+(?: of the matcher)?: )?|it after the server: |one such as )?",
    re.IGNORECASE,
)
_QUOTED = re.compile(
    r"(,? or |,? and |,? with |,? beside |)(?<![\w=])'([^']*[A-Za-z0-9][^']*)'(?: (?:in|to) (?:a )?\[(\w+)[^\]]*\])?"
)
_NO_VALUE = re.compile(
    r" (?:instead|here|there|as a key|for every address|of the two)$| in (?:a )?\[.*"
)
_VALUE = re.compile(r"\[\w+(?: [\w.-]+)?\]|[a-z_]+ = \S+|\S+(?: burst=\S+)?")
_PROSE = frozenset({"one", "it", "that", "this", "them", "plain"})
_UNFINISHED = re.compile(r"=$|DEFAULT|=VALUE$|^\$\{|^(?:openssl|cscli|txmux) ")
_KEYS = frozenset(key for keys in TABLES.values() for key in keys)

Line = tuple[str, str]
"""What to write, and the kind of section for it if it is another one."""


def suggestions(message: str) -> Iterator[Sequence[Line]]:
    """Yield what a message says to write, all that belongs together at once; advice in words is left out."""
    first = HINT.search(message)
    tail = _ASIDE.sub("", message[first.start() :]) if first else ""
    for clause in re.split(r"; |(?<=\?) |: (?=write )", tail):
        if not HINT.match(clause) or clause.startswith("as in ["):
            continue
        text = _FOR_EXAMPLE.sub("", clause.rstrip("?"), count=1)
        together: list[Line] = []
        there = re.search(r"\[(\w+)", message) if clause.endswith(" there") else None
        there = there or re.search(r"in \[(\w+)[^]]*\], (?=write)", message)
        for joint, quoted, section in _QUOTED.findall(text):
            if ("unknown key" not in message and quoted in _KEYS) or _UNFINISHED.search(quoted):
                continue  # only its reader knows the value
            if together and (" = " not in quoted or "or" in joint or not joint):
                yield together
                together = []
            where = section or (together[0][1] if together else there[1] if there else "")
            together.append((_filled(quoted), where))
        if together:
            yield together
            continue
        if _QUOTED.search(text):
            continue
        section = re.search(r" in (?:a )?\[(\w+)", text) or there
        for part in re.split(r",? or | and |, ", _NO_VALUE.sub("", text)):
            bare = re.sub(r"^for example | for (?:every|the) .*", "", part)
            if (
                _VALUE.fullmatch(bare)
                and bare.strip("\\'\"")
                and bare not in _PROSE
                and not _UNFINISHED.search(bare)
            ):
                yield [(_filled(bare), section[1] if section else "")]


def _filled(text: str) -> str:
    return _PLACEHOLDER.sub(lambda match: _PLACEHOLDERS[match[0]], text)


def applied(text: str, problem: Problem, together: Sequence[Line]) -> Iterator[str]:
    """Yield the file with what the message says, in each place where its reader may put it."""
    (what, where), *others = together
    lines = re.split(r"\r\n|\r|\n", text)
    at = _At(lines, problem)
    for changed in at.put(what, where):
        found = changed
        for line, there in others:
            kind = there or at.kind
            if line.partition(" =")[0] not in {one.partition("=")[0].strip() for one in found}:
                found = next(_added(found, kind, line, at.header if kind == at.kind else None))
        yield "\n".join(found)


def _added(lines: list[str], kind: str, line: str, header: int | None) -> Iterator[list[str]]:
    """Yield the lines with one more in a section: at the header, or in any of this kind, or in one more."""
    headers = [n for n, one in enumerate(lines) if re.match(rf"\s*\[{kind}\b", one)]
    if header is not None:
        headers = [header]
    for number in headers:
        yield [*lines[: number + 1], line, *lines[number + 1 :]]
    more = {
        "listen": "endpoint = :4049",
        "route": "match = stomp",
        "backend": "server = 192.0.2.8:1",
    }
    rest = [more[kind]] if kind in more and not line.startswith(more[kind][:5]) else []
    if kind == "route" and not line.startswith("backend"):
        rest.append("backend = close")
    yield [*lines, f"[{kind} extra]" if kind in more else f"[{kind}]", *rest, line]


@attrs.frozen
class _At:
    """Where a problem is."""

    lines: list[str]
    problem: Problem

    @property
    def number(self) -> int:
        return min(self.problem.line, len(self.lines)) - 1

    @property
    def _own(self) -> str:
        return self.lines[self.number]

    @property
    def header(self) -> int:
        headers = [n for n in range(self.number + 1) if self.lines[n].lstrip().startswith("[")]
        return headers[-1] if headers else -1

    @property
    def kind(self) -> str:
        return re.split(r"[^a-z]", self.problem.section.casefold())[0]

    def put(self, what: str, where: str) -> Iterator[list[str]]:
        keys = TABLES.get(where or self.kind, {})
        is_key = (
            re.match("unknown key|.*works only over TCP", self.problem.message) and what in keys
        )
        if re.match(r"[a-z_]+ = ", what):
            return self._line(what, where)
        if re.fullmatch(r"\[[a-z]+( .*)?\]", what):
            return iter([self._with(what)])
        return self._key(what, keys[what].example, where) if is_key else self._value(what)

    def _line(self, what: str, where: str) -> Iterator[list[str]]:
        name = what.partition(" =")[0]
        same = re.compile(rf"\s*{name}\s*=")
        kind = where or self.kind or next(kind for kind in TABLES if name in TABLES[kind])
        every = [self.lines, self._with()]
        every += [[one for one in lines if not same.match(one)] for lines in every]
        if kind == self.kind:
            yield self._with(what)
            for words in self._quoted():
                for stray in (words, rf"{words}\s+\S+"):
                    yield self._with(re.sub(rf"\s*{stray}(?=\s|$)", "", self._own), what)
        for lines in every:
            if kind == self.kind:
                yield from _added(lines, kind, what, self.header)
            if where or kind != self.kind:
                yield from _added(lines, kind, what, None)
        if where and kind != self.kind:
            yield from _added(self._without_section(), kind, what, None)

    def _key(self, what: str, example: str, where: str) -> Iterator[list[str]]:
        for value in (self._own.partition("=")[2], f" {example}"):
            yield self._with(f"{what} ={value}")
            yield [one for one in self._with(f"{what}={value}") if not one.startswith(f"{what} =")]
            if where:
                yield from _added(self._with(), where, f"{what} ={value}", None)

    def _value(self, what: str) -> Iterator[list[str]]:
        own = self._own
        _, equals, value = own.partition("=")
        if own[:1].isspace() or not equals:
            value = own
        yield self._with(own[: len(own) - len(value.lstrip())] + what)
        for words in self._quoted():
            yield self._with(re.sub(words, lambda _: what, own, count=1))
            yield self._with(
                re.sub(rf"{words.partition('=')[0]}(?==)", lambda _: what, own, count=1)
            )
            if " " not in what:
                yield [
                    re.sub(rf"(?<=[= ]){words}(?=$| )", lambda _: what, one) for one in self.lines
                ]
        for word in value.split():
            yield self._with(own.replace(word, what, 1))
            yield self._with(own.replace(word, f"{word.partition('=')[0]}={what}", 1))
        yield self._with(f"{own} {what}")
        name, sign, text = map(re.escape, what.partition("="))
        for habit in (rf"{name} *{sign or ' '} *{text}", rf"\b{name}=\S*", rf"\b{name} {text}"):
            yield self._with(re.sub(habit, lambda _: what, own))
        yield self._with(re.sub(r"\s*,\s*", ",", own))
        yield self._with(re.sub(r"(\w+)://", lambda _: f"{what}://", own))

    def _without_section(self) -> list[str]:
        after = (n for n in range(self.header + 1, len(self.lines)) if self.lines[n][:1] == "[")
        return [*self.lines[: self.header], *self.lines[next(after, len(self.lines)) :]]

    def _with(self, *lines: str) -> list[str]:
        return [*self.lines[: self.number], *lines, *self.lines[self.number + 1 :]]

    def _quoted(self) -> list[str]:
        return [re.escape(words) for words in re.findall("'([^']+)'", self.problem.message)]
