"""A service whose rules name a file for each key that takes one, each of which can be damaged."""

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from tests.support.examples import has_turn
from tests.support.named_files import FILES, RULES, folder_of_files
from tests.support.supervised import SupervisedTestCase

WAYS = "gone", "unreadable", "folder", "empty", "garbage", "half", "appended"


def in_one_way(ways: Sequence[str] = WAYS) -> dict[str, list[str]]:
    """Return a way to damage each file, where it has to be quick; all are used."""
    return {name: [ways[number % len(ways)]] for number, name in enumerate(FILES)}


def in_each_way(ways: Sequence[str] = WAYS) -> dict[str, list[str]]:
    """Return the ways of each file that have their turn."""
    return {name: [way for way in ways if has_turn(f"{name} {way}")] for name in FILES}


def use_files(case: SupervisedTestCase) -> None:
    """Have a case use rules that name a file for each key, in a folder with all of them."""
    case.folder = folder_of_files(case)
    case.file = case.folder / "rules.ini"
    case.file.write_text(RULES.format(case.folder))


def damages(path: Path, ways: Collection[str] = WAYS) -> Iterator[str]:
    """Damage a file in each of these ways, and put it back."""
    kept = path.with_name(f".{path.name}.kept")
    path.rename(kept)
    whole = kept.read_bytes() if kept.is_file() else b""
    contents = {
        "empty": b"",
        "garbage": b"\x00\xff\x80 garbage\n",
        "half": whole[: len(whole) // 2],
        "appended": whole + b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n",
    }
    makes: dict[str, Callable[[], object]] = {
        "gone": lambda: None,
        "unreadable": lambda: path.symlink_to(path),
        "folder": path.mkdir,
        **{name: partial(path.write_bytes, content) for name, content in contents.items()},
    }
    for name in ways:
        makes[name]()
        yield name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
    kept.rename(path)
