"""The file of ``admin_tokens``: a line ``NAME RIGHT SECRET`` for each client; its errors never quote it, since a word may be a secret."""

import re
from codecs import BOM_UTF8
from collections.abc import Iterator

import attrs

from txmux.classes import frozen
from txmux.errors import joined
from txmux.rules.model.settings import RIGHTS, Right

LARGEST_TOKENS = 1 << 20  # bytes
SHORTEST_TOKEN = 16
OWN = "admin"
"""The name of the token of ``admin_token``."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@frozen
class AdminToken:
    """The secret of a client of ``admin``, with its name for the log."""

    name: str
    right: Right
    secret: str = attrs.field(repr=False)


def is_secret(text: str) -> bool:
    return len(text) >= SHORTEST_TOKEN and text.isascii() and text.isprintable() and " " not in text


def read_tokens(data: bytes, own: AdminToken | None = None) -> tuple[list[AdminToken], list[str]]:
    """Return the tokens of a file, and what is wrong in it: each text begins with ``:LINE: ``, for the file's path before it.

    None has the name or the secret of `own`, that of ``admin_token``.
    """
    tokens, problems = [], []
    names = {} if own is None else {own.name: "'admin_token'"}
    secrets = {} if own is None else {own.secret: "'admin_token'"}
    for number, line in enumerate(data.removeprefix(BOM_UTF8).splitlines(), 1):
        words = line.decode("utf-8", "replace").split()
        if not words or words[0].startswith("#"):
            continue
        problem = next(_wrong(words, names, secrets), "")
        if problem:
            problems.append(f":{number}: {problem}")
            continue
        name, right, secret = words
        names[name] = secrets[secret] = f"line {number}"
        tokens += [AdminToken(name, known, secret) for known in RIGHTS if known == right]
    return tokens, problems


def _wrong(words: list[str], names: dict[str, str], secrets: dict[str, str]) -> Iterator[str]:
    if len(words) != 3:
        yield "a line has three words: a name, its right and its secret"
        return
    name, right, secret = words
    if right not in RIGHTS:
        yield f"the second word must be {joined(RIGHTS)}"
    if not is_secret(secret):
        yield f"the secret must have at least {SHORTEST_TOKEN} ASCII characters"
    if not _NAME.fullmatch(name):
        yield "the name must have 1 to 64 letters, digits and ._@-"
    if name in names:
        yield f"the name is that of {names[name]}; choose another one"
    if secret in secrets:
        yield f"the secret is that of {secrets[secret]}; choose another one"
