"""Lists the tests of what a change touches, a file in a line. `script/test --changed` runs them.

The change is all since the branch left `main`, and what is not committed. Of a module, these are its tests: those of its name, and those that
name it, by themselves or by way of a helper in their folder; without any, those of its folder.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

ALWAYS = ("tests/test_docs.py", "tests/test_plain_start.py", "tests/test_structure.py")
"""What holds for the whole of the code, and is checked in a second or two."""

BESIDE = {
    "benchmarks/": ("tests/test_benchmarks.py",),
    "examples/": ("tests/test_examples",),
    "packaging/": ("tests/packaging/",),
    "pyproject.toml": ("tests/test_scripts.py",),
    "script/": ("tests/test_changed.py", "tests/test_scripts.py"),
    "tests/convert/pairs/": (
        "tests/convert/test_pairs.py",
        "tests/interop/converted/test_served.py",
    ),
    "tests/features/": ("tests/rules/test_wrong.py",),
    "tests/matchers/": ("tests/matchers/test_collisions.py", "tests/matchers/test_samples.py"),
    "tests/rules/wrong/": ("tests/rules/test_wrong.py", "tests/rules/test_suggestions.py"),
    "txmux/features/": ("tests/rules/test_wrong.py",),
    "txmux/matchers/": (
        "tests/matchers/test_collisions.py",
        "tests/matchers/test_samples.py",
        "tests/rules/test_wrong.py",
    ),
    "txmux/rules/": ("tests/rules/test_wrong.py",),
}
"""How paths begin, and how the paths of tests begin that are theirs."""


def changed_files(folder: Path) -> list[str]:
    """List what a change has touched, with what it has removed."""
    bases = [
        _git(folder, "merge-base", "HEAD", name)
        for name in ("origin/main", "main")
        if _git(folder, "rev-parse", "--verify", "--quiet", name)
    ]
    found = _git(folder, "diff", "--name-only", "--no-renames", "-z", *bases[:1] or ["HEAD"])
    found += _git(folder, "ls-files", "--others", "--exclude-standard", "-z")
    return sorted({*filter(None, found.split("\0"))})


def tests_of(folder: Path, changed: list[str]) -> list[str]:
    """List the files of tests to run.

    Args:
        folder: The checkout.
        changed: Paths in it, of which some may not be there any longer.
    """
    tests = _Tests(folder)
    found = set(ALWAYS)
    for path in changed:
        found.update(tests.of(path))
    return sorted(filter(_is_test, found & tests.texts.keys()))


class _Tests:
    """All files in `tests/`, with their text."""

    def __init__(self, folder: Path) -> None:
        self.texts = {
            path.relative_to(folder).as_posix(): path.read_text()
            for path in folder.glob("tests/**/*.py")
        }

    def of(self, path: str) -> Iterator[str]:
        """Yield the tests of a file."""
        for begins, theirs in BESIDE.items():
            if path.startswith(begins):
                yield from self._below(theirs)
        room, _, inside = path.partition("/")
        if room == "tests":
            if path.endswith(".py"):
                yield from self._naming(path)
        elif room == "txmux":
            folder = Path("tests", inside).parent
            named = list(self._below((f"{folder.as_posix()}/test_{Path(path).stem}",)))
            yield from named or (one for one in self.texts if Path(one).parent == folder)
            if path.endswith(".py"):
                yield from self._naming(path)
        elif room == "txmux_convert":
            yield from self._below(("tests/convert/",))

    def _below(self, begins: tuple[str, ...]) -> Iterator[str]:
        return (path for path in self.texts if path.startswith(begins))

    def _naming(self, path: str) -> set[str]:
        """Return the tests that name a module, or a helper that does."""
        found, ahead = {path}, [path]
        while ahead:
            word, pattern = _pattern(ahead.pop())
            new = {one for one, text in self.texts.items() if word in text and pattern.search(text)}
            # A helper of all tests leads to most of them, of which few are about this module.
            ahead += (one for one in new - found if not _is_test(one) and "/support/" not in one)
            found |= new
        return found


def _pattern(path: str) -> tuple[str, re.Pattern[str]]:
    """Return the last part of a module's name, and what finds the name in an import, or in a text."""
    *package, stem = Path(path).with_suffix("").parts
    inside = re.escape(".".join(package))
    if stem == "__init__":
        return package[-1], re.compile(rf"\b{inside}\b(?!\.\w)")
    imported = rf"from {inside} import (?:\([^)]*|[^(\n]*)\b{stem}\b"
    return stem, re.compile(rf"\b{inside}\.{stem}\b|{imported}")


def _is_test(path: str) -> bool:
    return Path(path).name.startswith("test_")


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout if words[0] in {"diff", "ls-files"} else done.stdout.strip()


def main() -> None:
    """Run the program."""
    changed = changed_files(ROOT)
    print(f"changed: {len(changed)} files", file=sys.stderr)
    print(*tests_of(ROOT, changed), sep="\n")


if __name__ == "__main__":
    main()
