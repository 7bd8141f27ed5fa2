"""Prepares a release: the version, the changelog, the packages. `script/release` runs it."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[2]
LINTIAN = ("lintian", "--fail-on=error,warning", "--allow-root")
_VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
_RELEASED = re.compile(r"^## (\S+) \(\d", re.MULTILINE)
_FIRST = re.compile(r"^## \S+ \(not released yet\)\n(.+)", re.MULTILINE | re.DOTALL)
"""What the changelog says of the first release before that is made."""


def next_version(changelog: str, current: str, kinds: set[str]) -> str:
    """Tell which version the fragments ask for.

    Args:
        changelog: The text of the changelog, where the last release is first.
        current: The version in the code.
        kinds: The kinds of the fragments: "feature", "bugfix" and so on.

    Returns:
        The one in the code without its suffix if nothing has been released yet. Otherwise the last release with another
        second number if there is something new, or another third number; what is removed asks for another first number, but
        while that is 0 for another second one (Semantic Versioning 2.0.0, items 4, 6, 7 and 8).
    """
    released = _RELEASED.search(changelog)
    if released is None:
        return Version(current).base_version
    major, minor, patch = Version(released[1]).release
    if "removal" in kinds and major:
        return f"{major + 1}.0.0"
    if kinds & {"removal", "feature"}:
        return f"{major}.{minor + 1}.0"
    return f"{major}.{minor}.{patch + 1}"


def _git(*words: str, folder: Path = ROOT) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        _fail(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def _run(*module: str | Path, folder: Path) -> str:
    return _call(sys.executable, "-m", *module, folder=folder)


def _call(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        _fail(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _fail(message: str) -> None:
    sys.exit(f"release: {message}")


def _kinds(folder: Path) -> set[str]:
    return {path.name.split(".")[1] for path in folder.glob("newsfragments/*.*.md")}


def _chosen(asked: str | None) -> str:
    """Give the version to release; end the program if there cannot be such a release."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    version = asked or next_version(changelog, _current(ROOT), _kinds(ROOT))
    try:
        plain = Version(version).base_version == version
    except InvalidVersion:
        plain = False
    if not plain:
        _fail(f"'{version}' is not a version to release: write it as 1.2.3")
    released = _RELEASED.search(changelog)
    if released and Version(version) <= Version(released[1]):
        _fail(f"{version} is not after {released[1]}, the last release in CHANGELOG.md")
    if _git("tag", "--list", f"v{version}"):
        _fail(f"there is a tag v{version} already")
    return version


def _unready() -> Iterator[str]:
    """Yield what a release refuses, and a dry run only says: it builds and checks all the same."""
    if not _kinds(ROOT) and not _FIRST.search((ROOT / "CHANGELOG.md").read_text()):
        yield "nothing to release: there is no fragment in newsfragments/"
    if subprocess.run(
        ["git", "notes", "--ref=long", "show"], cwd=ROOT, capture_output=True, check=False
    ).returncode:
        yield (
            "the long tests are not known to pass with this commit: run script/test --long, or fetch what the workflow of each "
            "night has noted: git fetch origin refs/notes/long:refs/notes/long"
        )
    # What decides the speed is as it was measured on one of the machines whose figures are published.
    folders = [f"txmux/{name}" for name in ("tcp", "net", "udp", "detection")]
    for path in (ROOT / "benchmarks/published").glob("figures-*.json"):
        commit = json.loads(path.read_text()).get("commit")
        same = ["git", "diff", "--quiet", f"{commit}..HEAD", "--", *folders]
        if (
            commit
            and subprocess.run(same, cwd=ROOT, stderr=subprocess.DEVNULL, check=False).returncode
            == 0
        ):
            return
    last = _git("log", "-1", "--format=%h %s", "--", *folders)
    yield (
        f"all figures in benchmarks/published are older than the last change of tcp/, net/, udp/ or detection/ ({last}): run "
        "script/bench --rounds 5 --output benchmarks/published, and commit it with docs/explanation/performance.md"
    )


def _current(folder: Path) -> str:
    found = _VERSION.search((folder / "txmux/version.py").read_text())
    if found is None:
        _fail("txmux/version.py has no __version__")
        raise AssertionError
    return found[1]


def _write(folder: Path, version: str) -> str:
    """Write version and changelog into a checkout; return the changelog's new part.

    That of the first release is what the changelog says of it already, and then the features: nobody has had what has been
    mended or removed since.
    """
    path = folder / "txmux/version.py"
    path.write_text(_VERSION.sub(f'__version__ = "{version}"', path.read_text()))
    changelog = folder / "CHANGELOG.md"
    before = changelog.read_text()
    first = _FIRST.search(before)
    if first is not None:
        for path in folder.glob("newsfragments/*.*.md"):
            if ".feature." not in path.name:
                path.unlink()
    fragments = _kinds(folder)
    draft = _run("towncrier", "build", "--draft", f"--version={version}", folder=folder)
    _run("towncrier", "build", "--yes", f"--version={version}", folder=folder)
    new = draft[draft.index("## ") :].strip()
    if first is None:
        return new
    heading, _, changes = new.partition("\n")
    parts = [heading, first[1].strip()]
    if fragments:
        parts.append(changes.strip())
    new = "\n\n".join(parts)
    changelog.write_text(f"{before[: first.start()]}{new}\n")
    return new


def _build(folder: Path, version: str) -> list[Path]:
    """Build both packages in a clean checkout, the wheel from the source package, and check them."""
    readme = folder / "README.md"
    readme.write_text(absolute_links(readme.read_text(), _address(), version))
    # --no-isolation: with the hatchling of the environment, so that nothing is fetched.
    _run("build", "--no-isolation", folder=folder)
    made = sorted((folder / "dist").iterdir())
    _run("twine", "check", "--strict", *made, folder=folder)
    return made


def _missing() -> list[str]:
    return [name for name in ("dpkg-buildpackage", "lintian") if shutil.which(name) is None]


def _build_deb(folder: Path) -> list[Path]:
    """Build the Debian package for the Debian of this machine, if its tools are there, and check it."""
    if _missing():
        return []
    _call(folder / "script/deb", folder=folder)
    made = sorted((folder / "dist").glob("*.deb"))
    _call(*LINTIAN, *made, folder=folder)
    return made


def _check_image(folder: Path) -> None:
    """Check that all that the image's file copies is in the source package."""
    (archive,) = (folder / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = [name.partition("/")[2] for name in packed.getnames()]
    text = (folder / "Containerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    for path in " ".join(["Containerfile", *copied]).split():
        if not any(f"{name}/".startswith(f"{path}/") for name in names):
            _fail(f"{archive.name} lacks {path}, which the Containerfile needs")


def _list_components(folder: Path, version: str, made: list[Path]) -> Path:
    """Write beside the packages what they are made of and need."""
    (wheel,) = (path for path in made if path.suffix == ".whl")
    path = folder / "dist" / f"txmux-{version}.cdx.json"
    _call(sys.executable, Path(__file__).with_name("sbom.py"), wheel, path, folder=folder)
    return path


def _left_to_do(version: str, made: list[Path]) -> str:
    names = " ".join(f"dist/{path.name}" for path in made)
    steps = [
        f"git tag --sign --message 'txmux {version}' v{version}",
        f"git push origin HEAD v{version}",
    ]
    upload = f"{Path(sys.executable).parent}/twine upload {names}"
    by_hand = f"    the workflow of the tag publishes it; without that:\n    $ {upload}"
    return "\n".join([*(f"    $ {step}" for step in steps), by_hand])


def _address() -> str:
    """Return the address of the repository; nothing if nobody has written it yet."""
    urls = (ROOT / "pyproject.toml").read_text().partition("[project.urls]")[2]
    found = re.search(r'^Source = "(.+?)/?"$', urls, re.MULTILINE)
    return found[1] if found else ""


def absolute_links(text: str, address: str, version: str) -> str:
    """Have relative links and pictures lead to a tag of the repository, since PyPI shows the text, too."""
    if not address:
        return text
    for before, kind in ((r"!\[[^]]*\]\(", "raw"), (r'(?:src|srcset)="', "raw"), (r"\]\(", "blob")):
        pattern = rf"({before})(?!https?:|#)(?=[\w.])"
        text = re.sub(pattern, rf"\g<1>{address}/{kind}/v{version}/", text)
    return text


def _warnings() -> list[str]:
    """Tell what a person has to put right before the first upload."""
    found = []
    if missing := _missing():
        found.append(
            f"no Debian package, since there is no {' and no '.join(missing)}: apt install build-essential debhelper lintian"
        )
    if not _address():
        found.append(
            "pyproject.toml has no [project.urls] with the line 'Source = \"https://…\"': PyPI will not show where the project is, "
            "and links of README.md lead nowhere there"
        )
    if ".invalid>" in (ROOT / "packaging/debian/control").read_text():
        found.append("packaging/debian/control: Maintainer has no address that anyone reads")
    return found


def _tagged() -> str:
    """Return the version of a commit that has been released; end the program if its tag is not there."""
    version = _current(ROOT)
    if f"v{version}" not in _git("tag", "--points-at", "HEAD").split():
        _fail(f"this commit is version {version}, and has no tag v{version}")
    return version


def notes(changelog: str, version: str) -> str:
    """Return what the changelog says of a version."""
    _, _, text = changelog.partition(f"\n## {version} (")
    return text.partition("\n")[2].partition("\n## ")[0].strip()


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(prog="script/release", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="change nothing")
    parser.add_argument(
        "--tagged", action="store_true", help="build the release of which this commit has the tag"
    )
    parser.add_argument("version", nargs="?", help="by default the one that the fragments ask for")
    arguments = parser.parse_args()
    version = _tagged() if arguments.tagged else _chosen(arguments.version)
    unready = [] if arguments.tagged else [*_unready()]
    if unready and not arguments.dry_run:
        _fail("\n".join(unready))
    dirty = _git("status", "--porcelain")
    if dirty and not arguments.dry_run:
        _fail(f"commit or remove this first:\n{dirty}")
    if dirty:
        print("not committed, so not in what is built:", dirty, sep="\n")
    with tempfile.TemporaryDirectory(prefix="txmux-release-") as temporary:
        clean = Path(temporary, "txmux")
        _git("clone", "--quiet", str(ROOT), str(clean))
        if arguments.tagged:
            print(notes((clean / "CHANGELOG.md").read_text(), version))
        else:
            print(_write(clean, version))
        made = _build(clean, version)
        _check_image(clean)
        others = [*_build_deb(clean), _list_components(clean, version, made)]
        print(f"\nbuilt and checked, version {version}:")
        for path in (*made, *others):
            print(f"    {hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
        for warning in _warnings():
            print(f"warning: {warning}")
        if arguments.dry_run:
            for why in unready:
                print(f"a release is refused until this is done: {why}")
            print(f"tag: v{version}\nnothing was changed, and nothing was uploaded")
            return
        shutil.copytree(clean / "dist", ROOT / "dist", dirs_exist_ok=True)
        if arguments.tagged:
            text = notes((clean / "CHANGELOG.md").read_text(), version)
            (ROOT / "dist" / f"txmux-{version}.md").write_text(f"{text}\n")
            return
    _write(ROOT, version)
    _git("commit", "--quiet", "--all", "--message", f"Release {version}")
    print(f"committed: {_git('log', '-1', '--oneline')}")
    print("now a person, who has read the changelog:", _left_to_do(version, made), sep="\n")


if __name__ == "__main__":
    main()
