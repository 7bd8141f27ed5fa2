"""What the demo tells its user to try."""

from __future__ import annotations

from txmux.cli.demo.servers import GOODBYE, IDENTIFICATION


def examples(port: int) -> list[tuple[str, str]]:
    """Return commands to try, each with what will be seen.

    Args:
        port: The TCP port that the demo listens on.
    """
    return [
        (f"curl http://localhost:{port}/", "a page that says what happened"),
        (f"redis-cli -p {port} ping", "PONG"),
        (f"ssh -p {port} localhost", f"... {GOODBYE}"),
        (
            f"echo knock | nc -N localhost {port}",
            "knock: what nothing matches is echoed",
        ),
        (
            f"nc localhost {port}",
            f"type nothing, wait: {IDENTIFICATION.decode().strip()} comes",
        ),
    ]


def hints(port: int) -> str:
    """Say what to try, as lines of text to be printed when the demo has started.

    Args:
        port: The TCP port that it listens on.
    """
    width = max(len(command) for command, _ in examples(port))
    lines = (f"  {command:<{width}}  # {seen}" for command, seen in examples(port))
    return "\n".join(
        [
            f"txmux demo: HTTP, Redis, SSH and more, all on port {port}. Try, in another terminal:",
            "",
            *lines,
            "",
            "Ctrl-C stops it.",
        ]
    )
