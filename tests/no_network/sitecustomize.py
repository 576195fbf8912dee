"""Refuses every connection that is neither loopback nor a Unix socket, in this process and those it starts.

Python imports a module of this name at its start; tests put this folder on PYTHONPATH. Attempts are also
written to the file that NETWORK_ATTEMPTS names, because a library may swallow the refusal.
"""

import ipaddress
import os
import sys

CONNECTS = {"socket.connect", "socket.sendto"}


def _is_local(host: object) -> bool:
    if host in (None, "", "localhost", b"localhost"):
        return True
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _refuse(event: str, host: object) -> None:
    path = os.environ.get("NETWORK_ATTEMPTS")
    if path:
        with open(path, "a") as handle:  # noqa: PTH123 (runs before anything else may be imported)
            handle.write(f"{event} {host!r} by {sys.argv[:3]}\n")
    raise PermissionError(f"tests: {event} to {host!r} refused: neither loopback nor a Unix socket")


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event in CONNECTS:
        address = arguments[1]
        if isinstance(address, tuple) and not _is_local(address[0]):
            _refuse(event, address[0])
    elif event == "socket.getaddrinfo" and not _is_local(arguments[0]) and not _is_own_name(arguments[0]):
        _refuse(event, arguments[0])


def _is_own_name(host: object) -> bool:
    """Our own machine's name is looked up without a network."""
    return host in (os.uname().nodename, os.uname().nodename.encode())


sys.addaudithook(_watch)
