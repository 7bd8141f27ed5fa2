"""`txmux fmt FILE`: formats rules files."""

import argparse
import difflib
import io
import os
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from txmux.cli.layout import laid_out, meaning, under_all
from txmux.errors import MuxError
from txmux.files import read_own, replace_file
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.files import SourceFile, source_of
from txmux.rules.reading.parser import errors_alone

_STANDARD_INPUT = "<stdin>"
_DIFFERENT = 1


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help="a rules file; - is standard input, which is written to the standard output")  # fmt: skip
    parser.add_argument("--fix", action="store_true", help="also write what routes meant before they had to name their listeners: under = *")  # fmt: skip
    parser.add_argument("--check", action="store_true", help="write nothing, but show what would change; the exit code is 1 then")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Format the files; return 1 if ``--check`` finds what would change."""
    problems: list[Problem] = []
    code = 0
    for path in arguments.files:
        try:
            changed = _lay_out(path, check=arguments.check, fix=arguments.fix)
        except RulesError as error:
            problems += error.problems
        else:
            code = _DIFFERENT if changed and arguments.check else code
    if problems:
        raise RulesError(problems)
    return code


def _lay_out(path: str, *, check: bool, fix: bool) -> bool:
    """Format a file; return whether that changes it."""
    is_input = path == "-"
    data = sys.stdin.buffer.read() if is_input else _read(path)
    source = source_of(_STANDARD_INPUT if is_input else path, data)
    problems = errors_alone(source)
    if problems:
        raise RulesError(problems)
    written = under_all(source.text) if fix else source.text
    text = laid_out(written)
    if meaning(text) != meaning(written):
        message = "cannot be formatted without changing its meaning; please report this file"
        raise RulesError([Problem(source.path, 0, "", "", message)])
    changed = text.encode() != data
    if check:
        sys.stdout.writelines(_difference(source, data.decode(), text))
    elif is_input:
        sys.stdout.write(text)
    elif changed:
        _replace(Path(path), text.encode())
    return changed


def _read(path: str) -> bytes:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            message = "is not a regular file; write - for the standard input"
            raise RulesError([Problem(path, 0, "", "", message)])
        return read_own(Path(path))
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise RulesError([Problem(path, 0, "", "", message)]) from None


def _difference(source: SourceFile, old: str, new: str) -> Iterable[str]:
    before, after = (list(io.StringIO(text, newline="\n")) for text in (old, new))
    for line in difflib.unified_diff(before, after, source.path, f"{source.path} (formatted)"):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _replace(path: Path, data: bytes) -> None:
    """Replace the contents of a file atomically; its mode, owner and extended attributes stay."""
    path = path.resolve()  # a link stays one
    try:
        status = path.stat()

        def prepare(number: int) -> None:
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(number, status.st_uid, status.st_gid)
            os.fchmod(number, stat.S_IMODE(status.st_mode))
            _copy_attributes(path, number)

        replace_file(path, data, prepare)
    except OSError as error:
        raise MuxError(
            f"{path} cannot be written: {error.strerror}; it is unchanged. Write to the standard output by "
            f"'txmux fmt - < {path}', or do this as its owner"
        ) from None


def _copy_attributes(path: Path, number: int) -> None:
    """Copy extended attributes, such as access lists, as far as this process may."""
    with suppress(OSError):
        for name in os.listxattr(path) if hasattr(os, "listxattr") else ():
            with suppress(OSError):
                os.setxattr(number, name, os.getxattr(path, name))
