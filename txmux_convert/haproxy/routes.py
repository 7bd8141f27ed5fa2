"""Routes from the rules of the frontends of an ``haproxy.cfg``."""

import re
from collections.abc import Collection, Iterable
from itertools import groupby

import attrs

from txmux_convert.haproxy.acls import read_acl
from txmux_convert.haproxy.backends import fill_backend
from txmux_convert.haproxy.binds import BindContext, SideFiles
from txmux_convert.haproxy.decisions import (
    Acls,
    ClientDecisions,
    RuleCondition,
    Tests,
    decide,
    read_acls,
    read_question,
)
from txmux_convert.haproxy.limits import read_limits, tracking
from txmux_convert.haproxy.lines import Proxy
from txmux_convert.haproxy.servers import BackendDraft, only_server
from txmux_convert.terms import InexpressibleError, Term
from txmux_convert.writer import ConfigLine, Draft, DraftSection

OPEN = ", and so the clients that it keeps out come in"
_REFUSING = frozenset({"reject", "silent-drop"})
_NO_SERVER = re.compile(r"if \{ nbsrv\((?P<name>[^()]+)\) (lt 1|le 0|eq 0|0) \}")
DECIDING = frozenset({"accept", *_REFUSING})


@attrs.frozen
class HAProxyConversion:
    """The result so far.

    Attributes:
        proxies: The backends of the file that are converted, by name.
        used: Numbers of the lines that are converted or reported.
        chosen: The sections of single servers that rules choose.
        tables: The proxies of the file, any of which may have a ``stick-table``, by name.
    """

    draft: Draft
    proxies: dict[str, Proxy] = attrs.field(factory=dict)
    backends: dict[str, DraftSection] = attrs.field(factory=dict)
    used: set[int] = attrs.field(factory=set)
    chosen: dict[str, DraftSection] = attrs.field(factory=dict)
    tables: dict[str, Proxy] = attrs.field(factory=dict)


@attrs.define
class FrontendRoutes:
    """Builds routes from the rules of a frontend and of its backends."""

    proxy: Proxy
    made: HAProxyConversion
    bind: BindContext
    listeners: list[DraftSection]
    _questions: dict[ConfigLine, RuleCondition] = attrs.field(factory=dict, init=False)

    def lost(self, line: ConfigLine, why: str, consequence: str = "") -> None:
        self.listeners[0].flag(line, f"is left out{consequence}: {why}")

    def question(self, line: ConfigLine, start: int, acls: Acls) -> RuleCondition | None:
        """Read a condition; a condition without counterpart is reported and gives ``None``."""
        self.made.used.add(line.number)
        try:
            question = read_question(line.words[start:], acls, self.bind)
            self.bind.files.report_at(line.number)
        except InexpressibleError as error:
            self.lost(line, str(error), OPEN if refuses(line) else "")
            return None
        self._questions[line] = question
        return question

    def unreached(self) -> set[ConfigLine]:
        """Return the rules whose clients are all taken by earlier ones; negated conditions are skipped."""
        unreached: set[ConfigLine] = set()
        refused: set[Term] = set()
        accepts = False
        for words in (("tcp-request", "content"), ("use_backend",)):
            taken = {*refused}
            for line in self.proxy.all(*words):
                question = self._questions.get(line)
                if question is None or question.unless:
                    continue
                if all(_is_taken(term, taken) for t in question.groups for term in t.passed):
                    unreached.add(line)
                terms = {term for t in question.groups if not t.failed for term in t.passed}
                taken |= terms
                accepts |= line.name == "tcp-request" and not refuses(line)
                refused |= terms if refuses(line) and not accepts else set()
        return unreached

    def _decide_if(
        self, line: ConfigLine, start: int, acls: Acls, yes: ClientDecisions, no: ClientDecisions
    ) -> ClientDecisions:
        question = self.question(line, start, acls)
        if question is None:
            return no

        try:
            return self._decide(question, line, yes, no)
        except InexpressibleError as error:
            self.lost(line, str(error), OPEN if refuses(line) else "")
            return no

    def _decide(
        self, question: RuleCondition, line: ConfigLine, yes: ClientDecisions, no: ClientDecisions
    ) -> ClientDecisions:
        def lost(other: ConfigLine, why: str) -> None:
            self.listeners[0].flag(other, f"not for those of {line}: {why}")

        return decide(question, line, yes, no, lost)

    def decisions(self) -> ClientDecisions:
        acls = read_acls(self.proxy.all("acl"), self.bind)
        decisions = self._default()
        for line in reversed(self.proxy.all("use_backend")):
            if len(line.words) > 1 and not self._falls_back(line, decisions):
                decisions = self._decide_if(
                    line, 2, acls, self._to_named_backend(line, line.value), decisions
                )
        return self._by_content(self.proxy, acls, decisions)

    def _by_content(self, proxy: Proxy, acls: Acls, accepted: ClientDecisions) -> ClientDecisions:
        decisions = accepted
        for line in reversed(proxy.all("tcp-request", "content")):
            if len(line.words) > 2 and line.words[2] in DECIDING and not self.limits(line, proxy):
                yes = ClientDecisions() if refuses(line) else accepted
                decisions = self._decide_if(line, 3, acls, yes, decisions)
        return decisions

    def limits(self, line: ConfigLine, proxy: Proxy) -> bool:
        """Write a rule as limits per source address, if it is one."""
        keys = read_limits(line, proxy, self.made.tables) if refuses(line) else {}
        if not keys:
            return False
        tables = [table for p in self.made.tables.values() for table in p.all("stick-table")]
        self.made.used.update(own.number for own in (line, *tracking(proxy), *tables))
        for listener in self.listeners:
            for key, value in keys.items():
                if listener.add_default(key, value, line):
                    why = "HAProxy counts those that it refuses, too, and txmux does not"
                    listener.warn(line, why)
        return True

    def _default(self) -> ClientDecisions:
        own = self.made.backends.get(self.proxy.name) if self.proxy.kind == "listen" else None
        line = self.proxy.value("default_backend")
        if line:
            return self._to_backend(line, line.value)
        return self._chosen_servers(self.proxy, own) if own else ClientDecisions()

    def _chosen_servers(self, proxy: Proxy, section: DraftSection) -> ClientDecisions:
        """Forward to a backend, or to single servers of it by ``use-server``."""
        decisions = ClientDecisions(otherwise=section.name)
        acls = read_acls(proxy.all("acl"), self.bind)
        for line in reversed(proxy.all("use-server")):
            alone = only_server(proxy, line.value) if len(line.words) > 2 else None
            if alone is None:
                continue
            name = f"{proxy.name}-{line.value}"
            if name not in self.made.chosen:
                chosen = self.made.draft.section("backend", name, line)
                fill_backend(BackendDraft(alone, chosen, [self.proxy], self.made.used))
                # Where it is down, HAProxy asks the balance of all.
                chosen.add("fallback", section.name)
                self.made.chosen[name] = chosen
            to = ClientDecisions(otherwise=self.made.chosen[name].name)
            decisions = self._decide_if(line, 2, acls, to, decisions)
        return decisions

    def _falls_back(self, line: ConfigLine, rest: ClientDecisions) -> bool:
        """Write ``fallback`` for a rule on ``nbsrv``, if all other clients go to that backend anyway."""
        words = " ".join(line.words[2:])
        for acl in self.proxy.all("acl", line.words[3]) if len(line.words) == 4 else ():
            if len(acl.words) > 2:
                words = f"if {{ {' '.join(acl.words[2:])} }}"
        match = _NO_SERVER.fullmatch(words)
        section = self.made.backends.get(match["name"]) if match else None
        target = self.made.backends.get(line.value)
        if section is None or target is None or "fallback" in section.entries:
            return False
        if rest != ClientDecisions(otherwise=section.name) or "check" not in section.entries:
            return False
        self.made.used.add(line.number)
        section.add("fallback", target.name, line)
        return True

    def _to_named_backend(self, line: ConfigLine, name: str) -> ClientDecisions:
        """Forward to a backend; its name may depend on the client."""
        if "%[" not in name:
            return self._to_backend(line, name)
        try:
            tests = tests_of(name, self.made.proxies, self.bind.files)
            # A client without such a backend goes to the default one, whatever rules follow.
            decisions = self._default()
            for words, backend in reversed(tests):
                question = RuleCondition((Tests(read_acl(words, self.bind)),))
                is_there = backend in self.made.proxies
                to = self._to_backend(line, backend) if is_there else self._default()
                decisions = self._decide(question, line, to, decisions)
        except InexpressibleError as error:
            self.lost(line, f"{error}; these clients are closed")
            return ClientDecisions()
        return decisions

    def _to_backend(self, line: ConfigLine, name: str) -> ClientDecisions:
        """Forward to a backend, or to the destination of its own rules."""
        self.made.used.add(line.number)
        section, proxy = self.made.backends.get(name), self.made.proxies.get(name)
        if section is None or proxy is None:
            why = f"there is no backend '{name}' in the file, or it is disabled"
            self.listeners[0].flag(line, f"{why}; these clients are closed")
            return ClientDecisions()
        decisions = self._chosen_servers(proxy, section)
        if proxy is self.proxy:
            return decisions
        return self._by_content(proxy, read_acls(proxy.all("acl"), self.bind), decisions)


def _is_taken(term: Term, taken: Collection[Term]) -> bool:
    everywhere = attrs.evolve(term, allowed=None, excluded=frozenset())
    wider = term, attrs.evolve(term, options=()), everywhere, Term(term.matcher), Term()
    return any(candidate in taken for candidate in wider)


def refuses(line: ConfigLine) -> bool:
    return line.begins("tcp-request") and line.words[2:3] != () and line.words[2] in _REFUSING


_NAME = re.compile(
    r"(?P<before>[^%]*)%\[(?P<sample>[\w.]+)(?P<changed>(?:,[^\]]*)?)\](?P<after>[^%]*)"
)
_MAP = re.compile(
    r"map(?:_(?P<method>str|beg|end|dom|reg|sub))?\((?P<file>[^(),]+)(?:,(?P<default>[^(),]*))?\)"
)
_SAMPLES = frozenset({"req.ssl_sni", "req_ssl_sni", "ssl_fc_sni"})


def tests_of(name: str, backends: Iterable[str], files: SideFiles) -> list[tuple[list[str], str]]:
    """Take a name apart.

    Returns:
        Tests, each with the backend of the clients that pass it.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["sample"] not in _SAMPLES:
        raise InexpressibleError("a name that is put together for each client has no counterpart")
    before, after, sample = match["before"], match["after"], match["sample"]
    changes = match["changed"].removeprefix(",").replace("lower,", "", 1)
    if changes in {"", "lower"}:
        form = re.compile(f"{re.escape(before)}(.+){re.escape(after)}", re.DOTALL)
        fitting = filter(None, map(form.fullmatch, backends))
        return [([sample, "-i", "--", backend[1]], backend[0]) for backend in fitting]
    mapped = _MAP.fullmatch(changes)
    if mapped is None:
        raise InexpressibleError(f"{changes} has no counterpart")
    try:
        pairs = [line.split(None, 1) for line in files.lines(mapped["file"])]
    except OSError as error:
        why = error.strerror or error
        raise InexpressibleError(f"{mapped['file']} cannot be read here: {why}") from None
    method = mapped["method"] or "str"
    pairs = [pair for pair in pairs if len(pair) == 2]
    if method == "beg":
        pairs.sort(key=lambda pair: -len(pair[0]))
    elif method == "str":
        # Of several lines with the same name the first counts; in any other order they mean the same.
        pairs = sorted(
            {pair[0]: pair for pair in reversed(pairs)}.values(), key=lambda pair: pair[1]
        )
    tests = [
        (
            [sample, "-i", "-m", method, "--", *[key for key, _ in some]],
            f"{before}{value.strip()}{after}",
        )
        for value, some in groupby(pairs, key=lambda pair: pair[1])
    ]
    if mapped["default"]:
        # It is for clients that send a name; without one there is nothing to look up.
        tests.append(([sample, "-m", "found"], f"{before}{mapped['default']}{after}"))
    return tests
