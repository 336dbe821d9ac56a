"""Messages over a stream socket: four bytes of length, then so many bytes. The other side is not trusted to keep to it.

Sockets and signals are taken from the C halves of their modules here and in `keeper`: the Python halves spend a third of the start-up on
enumerations that nobody looks at.
"""

import _socket as socket
import array
import struct

_LENGTH = struct.Struct(">I")
HEADER_BYTES = _LENGTH.size


def framed(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def length_of(header: bytes) -> int:
    return int(_LENGTH.unpack(header)[0])


def receive(channel: socket.socket) -> bytes:
    """One message, waiting for it. b"" when the other side has closed."""
    header = _exactly(channel, HEADER_BYTES)
    return _exactly(channel, length_of(header)) if header else b""


def _exactly(channel: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = channel.recv(min(count, 1 << 16))
        if not part:
            return b""
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def receive_descriptors(channel: socket.socket, most_bytes: int, most: int) -> tuple[bytes, list[int]]:
    """A message and the open files that came with it (unix(7), SCM_RIGHTS). b"" when the other side has closed."""
    found = array.array("i")
    message, extra, _, _ = channel.recvmsg(most_bytes, socket.CMSG_LEN(most * found.itemsize))
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return message, list(found)
