REQUEST = (
    b"GET /api/x?q=1 HTTP/1.1\r\nAccept: */*\r\nhOst:  WWW.Example.com.:8080 \r\nX: y\r\n\r\nbody"
)
LINE_END = REQUEST.index(b"\n") + 1
HOST_END = REQUEST.index(b"\r\nX:") + 2
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def with_fields(*fields: str) -> bytes:
    return "\r\n".join(("GET / HTTP/1.1", *fields, "", "")).encode("latin-1")
