"""``txmux completion`` in the real shells, with a key that is pressed in a terminal."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from tests.interop.children import InteropTestCase, output_of
from tests.interop.screen import Screen
from tests.programs import require_program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PROMPT = "ready>"


class CompletionTests(InteropTestCase):
    """A word that is begun, and Tab."""

    def setUp(self) -> None:
        super().setUp()
        require_program("tmux")
        self.rules = self.folder / "a-rules-file.ini"
        self.rules.touch()
        program = self.folder / "bin" / "txmux"
        program.parent.mkdir(exist_ok=True)
        program.write_text('#!/bin/sh\necho "given:$*:"\n')
        program.chmod(0o755)

    def script(self, shell: str, name: str) -> Path:
        path = self.folder / shell / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(output_of(sys.executable, "-m", "txmux", "completion", shell))
        return path

    def assert_completes(self, command: Sequence[str], prepare: Sequence[str] = ()) -> None:
        """Begin some words in a shell, after what is typed to prepare it."""
        require_program(command[0])
        # Fish has a folder of its own among temporary files.
        folders = f"HOME={self.folder} TMPDIR={self.folder} PATH={self.folder / 'bin'}:$PATH"
        screen = self.own(Screen(self.folder, 100, shell=f"{folders} {shlex.join(command)}"))
        screen.wait_for(_PROMPT)
        for line in prepare:
            screen.type(f"{line}\n")
        for begun, whole in (
            ("upgr\t", "upgrade"),
            ("check --conn\t", "check --connect"),
            ("explain --liste\tpublic", "explain --listener public"),
            ("completion fi\t", "completion fish"),
            ("run --memc\t127.0.0.1:1", "run --memcached 127.0.0.1:1"),
            (f"check {self.folder}/a-ru\t", f"check {self.rules}"),
            (f"status --rules {self.folder}/a-ru\t", f"status --rules {self.rules}"),
        ):
            screen.type(f"txmux {begun}\n")
            screen.wait_for(rf"^given:{whole} ?:\n{_PROMPT}$")

    def test_bash(self) -> None:
        start = self.folder / "bashrc"
        script = self.script("bash", "txmux")
        start.write_text(f"PS1='{_PROMPT}'\n. {shlex.quote(str(script))}\n")
        self.assert_completes(["bash", "--noprofile", "--rcfile", str(start), "-i"])

    def test_zsh(self) -> None:
        folder = self.script("zsh", "_txmux").parent
        start = self.folder / ".zshrc"
        start.write_text(
            f"PS1='{_PROMPT}'\nfpath=({shlex.quote(str(folder))} $fpath)\nautoload -U compinit\ncompinit -u -D\n"
        )
        self.assert_completes(["zsh", "--no-globalrcs", "-i"])

    def test_fish(self) -> None:
        script = self.script("fish", "txmux.fish")
        place = self.folder / ".config/fish/completions/txmux.fish"
        place.parent.mkdir(parents=True)
        place.write_bytes(script.read_bytes())
        prompt = f"function fish_prompt; printf '{_PROMPT}'; end"
        self.assert_completes(["fish", "--init-command", prompt])
