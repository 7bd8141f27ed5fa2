"""One listening socket for every port of a network: ``sk_lookup.py 198.51.100.0/24 COMMAND…``.

A program in the kernel (bpf(2), BPF_PROG_TYPE_SK_LOOKUP; Linux 5.9 or later) leads each TCP connection to the network to a
socket, which the command inherits as from systemd (sd_listen_fds(3)). It needs the capabilities CAP_BPF and CAP_NET_ADMIN, and a route::

    ip route add local 198.51.100.0/24 dev lo
"""

import ctypes
import ipaddress
import os
import socket
import struct
import sys

_MAP_CREATE, _MAP_UPDATE_ELEM, _PROG_LOAD, _LINK_CREATE = 0, 2, 5, 28  # enum bpf_cmd
_SOCKMAP, _SK_LOOKUP_PROGRAM, _SK_LOOKUP = 15, 30, 36  # the kinds of map, program and attachment
_LOOKUP_ELEM, _SK_RELEASE, _SK_ASSIGN = 1, 86, 124  # the functions that it calls
_LOCAL_IP4 = 40  # where struct bpf_sk_lookup has the destination
_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
_LOG = 65536

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    room = ctypes.create_string_buffer(attributes, 160)
    result: int = _libc.syscall(_BPF, command, room, len(room))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _code(op: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", op, source << 4 | target, offset, value)


def _signed(address: int) -> int:
    """Return four bytes in the order of the network as the number that an instruction compares with."""
    (number,) = struct.unpack("=i", address.to_bytes(4, "big"))
    return int(number)


def _program(network: ipaddress.IPv4Network, sockets: int) -> bytes:
    return b"".join(
        (
            _code(0xBF, 6, 1),  # r6 = context
            _code(0x61, 1, 6, _LOCAL_IP4),  # w1 = destination
            _code(0x54, 1, value=_signed(int(network.netmask))),
            _code(0x56, 1, 0, 14, _signed(int(network.network_address))),  # another network: go on
            _code(0x18, 1, 1, 0, sockets),  # r1 = map
            _code(0),
            _code(0x62, 10, 0, -4, 0),  # its key 0, on the stack
            _code(0xBF, 2, 10),
            _code(0x07, 2, value=-4),
            _code(0x85, value=_LOOKUP_ELEM),
            _code(0x15, 0, 0, 7),  # there is none: go on
            _code(0xBF, 7),  # r7 = socket
            _code(0xBF, 1, 6),
            _code(0xBF, 2),
            _code(0xB7, 3),
            _code(0x85, value=_SK_ASSIGN),
            _code(0xBF, 1, 7),
            _code(0x85, value=_SK_RELEASE),
            _code(0xB7, 0, value=1),  # SK_PASS
            _code(0x95),
        )
    )


def main(network: ipaddress.IPv4Network, command: list[str]) -> None:
    """Listen, lead the connections there, and become the command."""
    listening = socket.socket()
    # Not an address: then txmux asks for the one of each connection, and its port.
    listening.bind(("", 0))
    listening.listen(1024)
    listening.setblocking(False)  # noqa: FBT003 - its signature
    sockets = _bpf(_MAP_CREATE, struct.pack("=IIII", _SOCKMAP, 4, 8, 1))
    key = ctypes.create_string_buffer(struct.pack("=I", 0))
    value = ctypes.create_string_buffer(struct.pack("=Q", listening.fileno()))
    places = (ctypes.addressof(key), ctypes.addressof(value))
    _bpf(_MAP_UPDATE_ELEM, struct.pack("=IIQQQ", sockets, 0, *places, 0))
    program = ctypes.create_string_buffer(_program(network, sockets))
    licence, log = ctypes.create_string_buffer(b"GPL"), ctypes.create_string_buffer(_LOG)
    texts = [ctypes.addressof(text) for text in (program, licence)]
    of_log = (1, _LOG, ctypes.addressof(log), 0, 0)
    attributes = struct.pack("=IIQQIIQII", _SK_LOOKUP_PROGRAM, len(program) // 8, *texts, *of_log)
    loaded = _bpf(_PROG_LOAD, attributes + bytes(16) + struct.pack("=II", 0, _SK_LOOKUP))
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    link = _bpf(_LINK_CREATE, struct.pack("=IIII", loaded, here, _SK_LOOKUP, 0))
    # It lasts as long as a process has it.
    os.set_inheritable(link, True)  # noqa: FBT003 - its signature
    os.dup2(listening.fileno(), 3)
    os.set_inheritable(3, True)  # noqa: FBT003 - it may have been that already
    os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="every", LISTEN_PID=str(os.getpid()))
    os.execvp(command[0], command)  # noqa: S606 - the user chose it


main(ipaddress.IPv4Network(sys.argv[1]), sys.argv[2:])
