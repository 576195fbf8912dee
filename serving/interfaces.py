"""Which network interface has an address."""

import ipaddress
import socket
import struct
from fcntl import ioctl
from pathlib import Path

SIOCGIFADDR = 0x8915  # netdevice(7)
IPV6 = Path("/proc/net/if_inet6")  # address, index, prefix, scope, flags, name


def interface_of(address: str) -> str | None:
    """The name of this machine's interface with that IPv4 or IPv6 address; None if it has none."""
    wanted = ipaddress.ip_address(address)
    if wanted.version == 6:
        return _of_ipv6(wanted.packed)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for _, name in socket.if_nameindex():
            if _ipv4_of(control, name) == wanted.packed:
                return name
    return None


def _ipv4_of(control: socket.socket, name: str) -> bytes:
    try:
        found = ioctl(control, SIOCGIFADDR, struct.pack("256s", name.encode()))
    except OSError:  # it has none
        return b""
    return found[20:24]


def _of_ipv6(wanted: bytes) -> str | None:
    if not IPV6.exists():
        return None
    rows = [line.split() for line in IPV6.read_text().splitlines()]
    return next((row[5] for row in rows if bytes.fromhex(row[0]) == wanted), None)
