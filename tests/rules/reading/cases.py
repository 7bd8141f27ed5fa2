from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.rules.fakes import MATCHERS
from tests.support.folders import make_folder
from txmux.rules.model import Backend, Rules
from txmux.rules.problems import InvalidValueError, RulesError
from txmux.rules.reading.parser import parse

LISTEN = "[listen a]\nendpoint = :1\n"


def read(text: str) -> Rules:
    return parse(text, "x.ini", MATCHERS)


def complaints(text: str, read: Callable[[str], object] = read) -> list[str]:
    try:
        read(text)
    except RulesError as error:
        return [f"{one.line} {one.key}: {one.message}" for one in error.problems]
    return []


def complaint(read: Callable[[str], object], text: str) -> str:
    try:
        value = read(text)
    except InvalidValueError as error:
        return "\n".join(error.messages)
    raise AssertionError(f"{text!r} is read as {value!r}")


def read_backend(text: str = "", *, servers: str = "10.0.0.1:80") -> Rules:
    """Read a file with a listener and a backend called b; its first server has the line 5, its first key the line 6."""
    whole = f"[listen l]\nendpoint = :1\nsilent = b\n[backend b]\nserver = {servers}\n{text}\n"
    return parse(whole, "etc/rules.ini", MATCHERS)


def backend(text: str = "", *, servers: str = "10.0.0.1:80") -> Backend:
    return read_backend(text, servers=servers).backends["b"]


class FolderTestCase(SynchronousTestCase):
    """Has rules in a folder of their own, which include those of ``d/``."""

    def setUp(self) -> None:
        self.folder = make_folder(self)
        text = "[txmux]\ninclude = d/*.ini\n[listen public]\nendpoint = :443\n"
        self.main = self.write("rules.ini", text)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path
