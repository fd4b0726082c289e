"""Finds the TCP sockets of this machine whose process has not read yet what has arrived."""

from pathlib import Path
from typing import NamedTuple


class UnreadSocket(NamedTuple):
    """One end of a connection that has unread bytes."""

    local_port: int
    remote_port: int
    inode: int
    """Identifies the socket: the kernel soon gives the port of a closed connection to a new one."""


def unread_sockets() -> list[UnreadSocket]:
    """Lists all IPv4 sockets with unread bytes."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, _, _, _, _, inode, *_ = line.split()
        if int(queues.partition(":")[2], 16):
            local_port, remote_port = (int(address.partition(":")[2], 16) for address in (local, remote))
            found.append(UnreadSocket(local_port, remote_port, int(inode)))
    return found
