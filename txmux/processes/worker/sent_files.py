"""Files on their way from the supervisor to a worker, as JSON."""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from txmux.net.watched import FilesInUse


def pack_files(files: Mapping[str, FilesInUse]) -> dict[str, Any]:
    """Make JSON of them; what several users have is in it once."""
    numbers: dict[bytes, int] = {}
    users = {
        user: [
            its.trouble,
            {
                str(path): [found[0], numbers.setdefault(found[1], len(numbers))]
                for path, found in its.files.items()
            },
        ]
        for user, its in files.items()
    }
    return {"users": users, "contents": [b64encode(data).decode() for data in numbers]}


def unpack_files(packed: Mapping[str, Any]) -> dict[str, FilesInUse]:
    contents = [*map(b64decode, packed.get("contents", ()))]
    return {
        user: FilesInUse(
            {Path(path): (time, contents[number]) for path, (time, number) in its.items()}, trouble
        )
        for user, (trouble, its) in packed.get("users", {}).items()
    }
