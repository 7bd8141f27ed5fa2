"""Opens and reads files: through a helper process those that this one may not open, and without waiting for a dead disk."""

import errno
import itertools
import os
import pwd
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar

T = TypeVar("T")
FileState: TypeAlias = tuple[int, int, int, int]
Reader: TypeAlias = Callable[[Path], bytes]
"""Reads a file, or has its contents from an earlier time; raises `OSError`."""
FileId: TypeAlias = tuple[int, int]
"""What no other file has meanwhile: its device and its inode."""

RUN = Path("/run/txmux")  # where services that have no folder of their own put their sockets
USERS = Path("/run/user")  # has each user's $XDG_RUNTIME_DIR
RULES = Path("/etc/txmux/rules.ini")  # of a service for which no file is named

_LOG = os.O_WRONLY | os.O_APPEND | os.O_CREAT
_LINKS = 40  # as in the kernel
_OWN = "/proc", "/proc/self", "/proc/self/fd"  # folders with links of the kernel
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY)  # which may be one that cannot be read
LARGEST, LARGEST_LIST = 1 << 30, 1 << 26  # bytes: a database of all cities has a fifth of the first
_CHUNK = 1 << 20
_NOT_REGULAR = "it is no regular file"
_MODE = 0o640  # the log names clients and what they asked for

_UNRESPONSIVE = 60.0
"""Seconds for which a helper that does not answer is not asked for the state of a file."""
_unresponsive_until = 0.0

_helper: Callable[[Path, int], int] | None = None
_remover: Callable[[Path, FileId], object] | None = None


def use_helper(
    helper: Callable[[Path, int], int] | None,
    remover: Callable[[Path, FileId], object] | None = None,
) -> None:
    """Ask a helper for files that this process may not open.

    It is given a path and flags as `os.open` takes them, and gives a descriptor. The remover is
    given the path of a socket that this process may not remove, and which it is. Both may raise `OSError`.
    """
    global _helper, _remover
    _helper, _remover = helper, remover


def has_helper() -> bool:
    return _helper is not None


def without_links(path: Path | str) -> str:
    """Return a path without links, or with all of them if this process may not follow one, as ``/proc/1/root``; `Path.resolve` also raises where one leads to itself."""
    try:
        return os.path.realpath(path)
    except OSError:
        return os.path.abspath(path)  # noqa: PTH100 - without a look at the disk


def other_path(path: Path) -> str:
    return f"correct the path, or put the file into {without_links(path.parent)!r}"


def file_id(path: Path) -> FileId:
    """Return which file is at a path, no link followed; zeros if this process cannot see it."""
    try:
        status = path.lstat()
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino


def status_of(path: Path) -> os.stat_result:
    """Return the status of a file that the rules name, by the helper if this process cannot see it."""
    try:
        return path.stat()
    except PermissionError:
        if _helper is None:
            raise
    descriptor = _helper(path, os.O_RDONLY)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def remove_socket(path: Path, bound: FileId) -> None:
    """Remove the file of a UNIX socket, if it is still there."""
    try:
        remove_own_socket(path, bound)
    except FileNotFoundError:
        return
    except PermissionError:
        if _remover is None:
            raise
        _remover(path, bound)


def remove_own_socket(path: Path, bound: FileId) -> None:
    """Remove the file of a UNIX socket; anything else stays, also a socket that another program has bound there since."""
    with held_folder(path) as folder:
        status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISSOCK(status.st_mode) and (status.st_dev, status.st_ino) == bound:
            os.unlink(path.name, dir_fd=folder)


@contextmanager
def held_folder(path: Path) -> Iterator[int]:
    """Hold the folder of a file, as a descriptor for ``dir_fd``, so that a swapped link on the path leads to no other folder.

    For root, a link on the way that is another user's is an `OSError` (``ELOOP``).
    """
    if os.geteuid() == 0:
        folder, _ = open_safely(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    else:
        folder = os.open(path.parent, _FOLDER | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def require_proc() -> None:
    if not Path("/proc/self").exists():
        raise OSError(
            errno.ENOSYS,
            "/proc is not mounted: mount it, or choose a folder in which only the service's user may write",
        )


def open_log(path: Path, owner: tuple[int, int] | None = None, *, alone: bool = False) -> int:
    """Open a file to append to, and give its descriptor; if it is made, it belongs to these user and group IDs.

    With `alone`, no helper is asked.
    """
    file = None
    try:
        with on_disk(path):
            file = _open_to_append(path, owner)
    except PermissionError:
        if _helper is None or alone:
            raise
        return _helper(path, _LOG)
    except TimeoutError:
        if file is not None:  # it came too late for its caller
            os.close(file)
        raise
    return file


def _open_to_append(path: Path, owner: tuple[int, int] | None) -> int:
    if path.is_fifo() or path.is_socket():
        raise OSError(errno.EINVAL, "it is neither a file nor a device")
    if os.geteuid() != 0:
        return os.open(path, _LOG | os.O_CLOEXEC, _MODE)
    file, made = open_safely(path, _LOG)
    if made and owner is not None:
        os.fchown(file, *owner)
    return file


def open_safely(path: Path, flags: int = os.O_RDONLY) -> tuple[int, bool]:
    """Open a file as root where others may write, too: links on the way are followed only if root has made them, or the owner of the file.

    Else a user who may write to a folder of the path could have any file read or written.

    Args:
        path: Its path.
        flags: As `os.open` takes them.

    Returns:
        Its descriptor, and whether it was made.

    Raises:
        OSError: It cannot be opened, or there is such a link (``ELOOP``).
    """
    with _naming(path):
        return _opened_safely(path, flags)


def safe_status(path: Path) -> os.stat_result:
    """Return the status of what `read_bytes` reads; for a link on the way that it does not follow, raise its `OSError`."""
    if not _has_safe_links():
        return path.stat()
    found, _ = open_safely(path, os.O_PATH)
    try:
        return os.fstat(found)
    finally:
        os.close(found)


def _has_safe_links() -> bool:
    return hasattr(os, "O_PATH") and (os.geteuid() == 0 or has_helper())


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make errors name the file, and not a part of its path."""
    try:
        yield
    except OSError as problem:
        problem.filename = str(path)
        raise


def _opened_safely(path: Path, flags: int) -> tuple[int, bool]:
    if not hasattr(os, "O_PATH"):  # no Linux
        made = bool(flags & os.O_CREAT) and not path.exists()
        return os.open(path, flags | os.O_CLOEXEC, _MODE), made
    ahead = list(reversed(path.absolute().parts[1:]))
    folder, kernels = _there("/"), file_id(Path("/proc/self"))[0]
    links, others = 0, dict[int, str]()  # the last link of each other user
    try:
        while True:
            name = ahead.pop() if ahead else "."
            try:
                there = _there(name, folder)
            except OSError as error:
                _refuse_links(others)
                if ahead or error.errno != errno.ENOENT or not flags & os.O_CREAT:
                    raise
                return _open_at(folder, name, flags | os.O_EXCL), True
            status = os.fstat(there)
            follow = 0
            if stat.S_ISLNK(status.st_mode) and (status.st_uid, status.st_dev) == (0, kernels):
                # It may lead to what has no path, or to a path elsewhere, as those of /proc/self/fd do.
                os.close(there)
                _refuse_link_of_process(folder, name)
                there = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=folder)
                status, follow = os.fstat(there), os.O_NOFOLLOW
            if stat.S_ISLNK(status.st_mode):
                target = Path(os.readlink("", dir_fd=there))
                os.close(there)
                links += 1
                if status.st_uid:
                    others[status.st_uid] = name
                if links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                ahead += reversed(target.parts)  # one that begins with / begins there
            elif ahead:
                os.close(folder)
                folder = there
            else:
                os.close(there)
                others.pop(status.st_uid, None)
                _refuse_links(others)
                return _open_at(folder, name, flags & ~os.O_CREAT, follow), False
    finally:
        os.close(folder)


def _refuse_links(others: Mapping[int, str]) -> None:
    for user, name in others.items():
        why = f"the link {name!r} in the path is neither root's nor of the file's owner, but of user {user}"
        raise OSError(errno.ELOOP, why)


def _refuse_link_of_process(folder: int, name: str) -> None:
    # The user of a process decides where these lead, and can make them root's by prctl(2).
    status = os.fstat(folder)
    if not any(os.path.samestat(status, os.stat(own)) for own in _OWN):  # noqa: PTH116 - of strings
        raise OSError(errno.ELOOP, f"the link {name!r} in the path is of another process")


def _there(name: str, folder: int | None = None) -> int:
    return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


def _open_at(folder: int, name: str, flags: int, without: int = 0) -> int:
    # O_NONBLOCK: do not wait for the other end of a pipe
    more = (os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY) & ~without
    return os.open(name, flags | more, _MODE, dir_fd=folder)


def read_bytes(path: Path, most: int = LARGEST_LIST) -> bytes:
    """Read all of a regular file of at most so many bytes, by the helper if this process may not.

    Anything else would halt the service, as a pipe whose writer is silent, or have no end, as a device. ``/dev/null`` is empty.
    Root, and who has a helper, follow links as `open_safely` does: who is let name a file could put a link in its place.

    Raises:
        OSError: It cannot be read, is no regular file (``EINVAL``), is too large (``EFBIG``), or its disk does not answer (``ETIMEDOUT``).
    """
    with on_disk(path), _opened(path) as file:
        return _content(file, path, most)


def _opened(path: Path) -> BinaryIO:
    try:
        return _open_own(path)
    except PermissionError:
        if _helper is None:
            raise
    descriptor = _helper(path, os.O_RDONLY)
    try:
        return open(descriptor, "rb")  # noqa: PTH123 - a descriptor
    except OSError:  # it is a folder
        os.close(descriptor)
        raise


def _content(file: BinaryIO, path: Path, most: int) -> bytes:
    status = os.fstat(file.fileno())
    if _is_null(status, path):
        return b""
    if status.st_size <= most:  # one of /proc has no size
        chunks = [*itertools.islice(iter(partial(_chunk, file), b""), most // _CHUNK + 1)]
        if None in chunks:  # there may be more later, as in /proc/kmsg
            raise OSError(errno.EINVAL, _NOT_REGULAR, str(path))
        data = b"".join(chunks)
        if len(data) <= most:
            return data
    raise OSError(errno.EFBIG, f"it is larger than {most >> 20} MiB", str(path))


def _is_null(status: os.stat_result, path: Path) -> bool:
    """Return whether it is ``/dev/null``; raises `OSError` if it is neither that nor a regular file."""
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == Path(os.devnull).stat().st_rdev:
        return True
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, _NOT_REGULAR, str(path))
    return False


def _chunk(file: BinaryIO) -> bytes:
    thread = threading.get_ident()
    if thread in _waiting:  # each chunk is a step of its own
        _waiting[thread] = time.monotonic(), _waiting[thread][1]
    return file.read(_CHUNK)


PATIENCE = 8.0
"""Seconds that a disk may take for one step, such as to open a file, until a thread that waits for it is left behind."""
_POLL = 0.25  # seconds
_waiting: dict[int, tuple[float, str]] = {}
"""By thread, since when it waits for the disk of which file."""
_left: set[int] = set()
"""The threads that were given up with their disks."""


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Record that this thread waits for the disk of a file, which may be that of another machine; see `late_disk`.

    Raises:
        OSError: The disk has not answered another thread for so long that this one does not wait (``ETIMEDOUT``): for this file, or
            for another one in its folder.
    """
    name, thread, now = str(path), threading.get_ident(), time.monotonic()
    outer = _waiting.get(thread)
    for other, (began, waited_for) in _waiting.copy().items():
        if other != thread and now - began > PATIENCE and _are_beside(name, waited_for):
            raise _late(path, waited_for)
    _waiting[thread] = now, name
    try:
        yield
    finally:
        del _waiting[thread]
        if outer is not None:
            _waiting[thread] = time.monotonic(), outer[1]
        if thread in _left:
            raise _late(path)


def _are_beside(name: str, other: str) -> bool:
    return os.path.dirname(name) in {os.path.dirname(other), other}  # noqa: PTH120 - for each look


def late_disk(thread: int) -> OSError | None:
    """Return the error of the disk for which a thread has waited too long, and give that thread up; ``None`` if it has not."""
    began, name = _waiting.get(thread, (0.0, ""))
    if not name or time.monotonic() - began <= PATIENCE:
        return None
    _left.add(thread)
    return _late(Path(name))


def within_patience(function: Callable[..., T], *arguments: Any) -> T:
    """Run a function that reads files, and has all that it waits for marked by `on_disk`.

    A process with a reactor has `txmux.net.turns.in_thread` for that.

    Raises:
        OSError: A disk does not answer (``ETIMEDOUT``), and a thread is left behind that waits for it.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        forget_thread(threading.get_ident())  # an earlier thread may have had the same number
        try:
            results.append(function(*arguments))
        except BaseException as error:  # noqa: BLE001 - it is raised below
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL)
        if late := late_disk(thread.ident or 0):
            raise late
    if errors:
        try:
            raise errors[0]
        finally:
            errors.clear()
    return results[0]


def forget_thread(thread: int) -> None:
    _left.discard(thread)


def _late(path: Path, waited_for: str = "") -> OSError:
    by = f" when '{waited_for}' was read" if waited_for not in {"", str(path)} else ""
    why = f"its disk has not answered for {PATIENCE:g} s{by}; check whether it is mounted and can be reached"
    return OSError(errno.ETIMEDOUT, why, str(path))


def open_once(path: Path) -> None:
    """Open a regular file, by the helper if this process may not, and close it again: its disk may not answer."""
    with on_disk(path):
        with suppress(PermissionError):
            if not stat.S_ISREG(path.stat().st_mode):
                return
        _opened(path).close()


def make_by_helper(path: Path) -> None:
    """Ask the helper to make a missing file, which it does if the rules name it."""
    if _helper is not None:
        os.close(_helper(path, os.O_RDONLY))


def state_at(path: Path) -> FileState:
    """Return the state of a file, asking the helper if this process may not see it.

    Raises:
        OSError: It cannot be looked at, by the helper neither; with ``EPIPE``, the helper does not answer, and is not asked
            again for a minute; with ``ETIMEDOUT``, its disk does not answer.
    """
    with on_disk(path):
        try:
            return _state_of(path.stat())
        except PermissionError:
            if _helper is None:
                raise
    with _opened_by_helper(_helper, path) as descriptor:
        return _state_of(os.fstat(descriptor))


@contextmanager
def _opened_by_helper(helper: Callable[[Path, int], int], path: Path) -> Iterator[int]:
    global _unresponsive_until  # noqa: PLW0603 - there is one helper
    if time.monotonic() < _unresponsive_until:
        raise OSError(errno.EPIPE, "the helper that opens files does not answer")
    try:
        descriptor = helper(path, os.O_RDONLY)
    except OSError as problem:
        if problem.errno == errno.EPIPE:
            _unresponsive_until = time.monotonic() + _UNRESPONSIVE
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, by the helper if this process may not read it."""
    try:
        with on_disk(folder):
            return os.listdir(folder)  # noqa: PTH208 - as below
    except PermissionError:
        if _helper is None:
            raise
    with _opened_by_helper(_helper, folder) as descriptor:
        return os.listdir(descriptor)  # noqa: PTH208 - of a descriptor


def replace_file(
    path: Path, data: bytes, prepare: Callable[[int], object] | None = None, mode: int = 0o600
) -> None:
    """Replace a file, whole or not at all; a link in its place is replaced, and those on the way are followed as by `held_folder`.

    What is no file stays, such as ``/dev/null``, which a machine cannot do without.

    Args:
        path: Its path.
        data: Its contents.
        prepare: Called with the descriptor of the new file before it takes its place.
        mode: Of the new file, as far as the umask allows.

    Raises:
        OSError: The file is as it was.
    """
    new = f".{path.name}.{os.getpid()}"
    with on_disk(path), _naming(path), held_folder(path) as folder:
        with suppress(FileNotFoundError):
            kind = os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind) or stat.S_ISDIR(kind)):
                raise OSError(errno.EEXIST, "it is a device, a pipe or a socket")
        with suppress(FileNotFoundError):
            os.unlink(new, dir_fd=folder)
        how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        number = os.open(new, how, mode, dir_fd=folder)
        try:
            with open(number, "wb") as file:  # noqa: PTH123 - a descriptor
                file.write(data)
                if prepare is not None:
                    prepare(number)
                file.flush()
                os.fsync(number)
            os.replace(new, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(new, dir_fd=folder)
            raise
        with suppress(OSError):  # it may be a folder that cannot be read
            entries = os.open(".", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
            try:
                os.fsync(entries)
            finally:
                os.close(entries)


def _state_of(status: os.stat_result) -> FileState:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def read_secret(path: Path, encoding: str = "ascii", read: Reader = read_bytes) -> str:
    """Read a file whose only line is a secret; an empty string if it holds anything else than one printable line."""
    try:
        secret = read(path).decode(encoding).strip()
    except UnicodeDecodeError:
        return ""
    return secret if secret.isprintable() else ""


def read_own(path: Path, most: int = LARGEST_LIST) -> bytes:
    """Read all of a file that this process is permitted to read; see `read_bytes`."""
    return read_with_owner(path, most)[0]


def read_with_owner(path: Path, most: int) -> tuple[bytes, int]:
    """Do the same, and return the user whose file it was, too, since another may be in its place by now."""
    with on_disk(path), _open_own(path) as file:
        return _content(file, path, most), os.fstat(file.fileno()).st_uid


def _open_own(path: Path) -> BinaryIO:
    _check_kind(safe_status(path), path)
    return open(path, "rb", opener=_open_by_safe_links if _has_safe_links() else _open_at_once)


def _check_kind(status: os.stat_result, path: Path) -> None:
    """Open no pipe, whose writer would go on, and no device, some of which act then."""
    if not stat.S_ISDIR(status.st_mode):  # which `open` refuses
        _is_null(status, path)


def _open_by_safe_links(path: str, flags: int) -> int:
    return open_safely(Path(path), flags)[0]


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def may_read(path: Path) -> bool:
    """Return whether the system lets this process open a file or a folder without its helper; what is missing is no question of that."""
    try:
        with on_disk(path):
            os.close(_open_at_once(str(path), os.O_RDONLY | os.O_CLOEXEC))
    except PermissionError:
        return False
    except OSError:  # who needs the file reports it
        return True
    return True


def mode_lets(
    status: os.stat_result, mode: int, user: int, is_member: Callable[[int], bool]
) -> bool:
    """Return whether the mode of a file lets a user do this, as the bits of `os.access`; it asks for groups only where that matters."""
    by_group, by_all = bool(status.st_mode & mode << 3), bool(status.st_mode & mode)
    if user == 0:
        return True
    if user == status.st_uid:
        return bool(status.st_mode & mode << 6)
    return by_all if by_group == by_all else by_group == is_member(status.st_gid)


def groups_of(user: int, group: int | None = None) -> list[int]:
    """Return the groups of a user of this machine; `group` is the first one, if not that of the account."""
    own = [] if group is None else [group]
    try:
        account = pwd.getpwuid(user)
    except KeyError:
        return own
    return os.getgrouplist(account.pw_name, *own or [account.pw_gid])


def socket_folders(environ: Mapping[str, str]) -> list[Path]:
    """Return the folders that may have the socket of ``admin = auto``: those of systemd, then the others where services make it."""
    named = [*environ.get("RUNTIME_DIRECTORY", "").split(":"), str(RUN)]
    if environ.get("XDG_RUNTIME_DIR"):
        named.append(os.path.join(environ["XDG_RUNTIME_DIR"], "txmux"))  # noqa: PTH118
    return [Path(name) for name in dict.fromkeys(named) if name]
