"""A NAT with one port, as a program: whoever speaks has it, until another one does. It runs until it is ended."""

import selectors
import socket
import sys
from typing import Any


def main(port: int) -> None:
    """Pass datagrams on, to a port and back."""
    inside, outside = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    inside.bind(("127.0.0.1", 0))
    outside.connect(("127.0.0.1", port))
    sys.stdout.write(f"port {inside.getsockname()[1]}\n")
    sys.stdout.flush()
    client: Any = None
    with selectors.DefaultSelector() as selector:
        for one in (inside, outside):
            selector.register(one, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is inside:
                    data, client = inside.recvfrom(65535)
                    outside.send(data)
                else:
                    inside.sendto(outside.recv(65535), client)


if __name__ == "__main__":
    main(int(sys.argv[1]))
