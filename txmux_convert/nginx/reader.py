"""Configurations of nginx, split into words by the package crossplane, with the files that they include."""

from __future__ import annotations

import glob
import re
import tempfile
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

import attrs

from txmux_convert.writer import (
    ConfigLine,
    ConvertError,
    Draft,
    acting_as,
    import_package,
    read_named,
)

Token = tuple[str, int, bool]

_ESCAPED = re.compile(r"\\([\"'\\trn])")
_CONTROLS = {"t": "\t", "r": "\r", "n": "\n"}
_MOST_DEPTH = 50
_LUA = "_by_lua_block"
"""Suffix of blocks in Lua, in which braces and semicolons have other meanings."""

_UNKNOWN_LUA = tuple(
    f"{phase}{_LUA}"
    for phase in (
        *("exit_worker", "preread", "proxy_ssl_certificate", "proxy_ssl_verify"),
        *("server_rewrite", "ssl_client_hello"),
    )
)
"""Blocks that crossplane does not know."""


@attrs.frozen
class Directive(ConfigLine):
    """A directive with what it has in braces."""

    block: tuple[Directive, ...] | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        return self.words[1:]

    def __str__(self) -> str:
        return " ".join(word or '""' for word in self.words)


class NginxReader:
    """Reads a configuration and what it includes.

    Attributes:
        unmatched: Patterns of files to include that no file matched.
    """

    def __init__(self, data: bytes, draft: Draft) -> None:
        self._crossplane = import_package("crossplane", "an nginx.conf")
        lua = import_module("crossplane.ext.lua").LuaBlockPlugin()
        import_module("crossplane.lexer").register_external_lexer(_UNKNOWN_LUA, lua.lex)
        self.unmatched: list[str] = []
        self._draft = draft
        self.directives = self._read(data, draft.path)

    def expanded(
        self, directives: Iterable[Directive], *, inner: bool = True, within: tuple[str, ...] = ()
    ) -> tuple[Directive, ...]:
        whole: list[Directive] = []
        for directive in directives:
            if directive.name == "include" and directive.block is None:
                whole += self._included(directive, within, inner=inner)
            elif inner and directive.block is not None:
                block = self.expanded(directive.block, within=within)
                whole.append(attrs.evolve(directive, block=block))
            else:
                whole.append(directive)
        return tuple(whole)

    def _included(
        self, directive: Directive, within: tuple[str, ...], *, inner: bool
    ) -> Iterator[Directive]:
        pattern = str(Path(self._draft.path).parent / directive.value)
        several = glob.has_magic(pattern) and "\0" not in pattern  # which no name has
        with acting_as(self._draft.author):
            files = sorted(glob.glob(pattern)) if several else [pattern]  # noqa: PTH207 - it may be absolute
        if not files:
            self.unmatched.append(pattern)
            self._draft.warn(directive, "there is no such file here")
        for file in files:
            directives, why = (
                self._tried(file) if file not in within else ((), "it includes itself")
            )
            if why:
                self._draft.flag(directive, f"is left out: {file} cannot be read: {why}")
            yield from self.expanded(directives, inner=inner, within=(*within, file))

    def _tried(self, file: str) -> tuple[tuple[Directive, ...], str]:
        """Return a file's directives, and why it cannot be opened."""
        try:
            return self._read(read_named(Path(file), self._draft), file), ""
        except OSError as error:
            return (), str(error.strerror)
        except ValueError as error:  # it is no name
            return (), str(error)

    def _read(self, data: bytes, name: str) -> tuple[Directive, ...]:
        try:
            # crossplane opens files itself.
            with tempfile.NamedTemporaryFile() as copy:
                copy.write(data + b"\n")  # without it, the last word would be lost
                copy.flush()
                tokens: Iterator[Token] = iter(self._crossplane.lex(copy.name))
                return tuple(self._block(tokens, name))
        except self._crossplane.errors.NgxParserBaseException as error:
            raise ConvertError(f"{name}:{error.lineno}: {error.strerror}") from None

    def _block(self, tokens: Iterator[Token], file: str, depth: int = 0) -> Iterator[Directive]:
        for first, line, quoted in tokens:
            if first == "}" and not quoted:
                return
            if first.startswith("#") and not quoted:
                continue
            words, end = self._words(tokens)
            if depth > _MOST_DEPTH:
                raise ConvertError(f"{file}:{line}: the blocks are nested too deeply")
            if end in {"", "}"}:
                raise ConvertError(f"{file}:{line}: the directive {first!r} does not end with ';'")
            block = tuple(self._block(tokens, file, depth + 1)) if end == "{" else None
            if first.endswith(_LUA):
                words = ("{ … }",)
            words = tuple(
                _ESCAPED.sub(lambda f: _CONTROLS.get(f[1], f[1]), w) for w in (first, *words)
            )
            yield Directive(words, self._draft.line_in(file, line), block)

    def _words(self, tokens: Iterator[Token]) -> tuple[tuple[str, ...], str]:
        """Return the parameters of a directive and the sign that ends it; empty at the end of the file."""
        words: list[str] = []
        for word, _, quoted in tokens:
            if not quoted and word in {";", "{", "}"}:
                return tuple(words), word
            if quoted or not word.startswith("#"):
                words.append(word)
        return tuple(words), ""
