"""What clients say who ask for a tunnel, and the answer."""

OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"


def connect_to(target: str, *fields: str, version: str = "1.1") -> bytes:
    lines = [f"CONNECT {target} HTTP/{version}", f"Host: {target}", *fields, "", ""]
    return "\r\n".join(lines).encode()
