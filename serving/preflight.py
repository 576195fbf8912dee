"""What must hold before anything is started. Each failure is one message that says how to mend it."""

import ipaddress
import socket

from local_llm.errors import ConflictError, InvalidInputError
from local_llm.keys import KeyStore
from local_llm.settings import ServerSettings

BACKLOG = 2048


def require_keys_beyond_loopback(host: str, keys: KeyStore) -> None:
    """Without a key the server speaks to this machine only.

    Raises: InvalidInputError.
    """
    if not is_loopback(host) and not keys.any_created():
        raise InvalidInputError(
            f"no key was ever created, so the server listens on loopback only, not on {host}",
            hint="local-llm keys create NAME --role owner, or --host 127.0.0.1",
        )


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(server: ServerSettings) -> socket.socket:
    """The listening socket, held by the parent so that a restarted gateway loses no connection.

    Raises: ConflictError if the port is in use, InvalidInputError if the host is not ours.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
    except socket.gaierror as error:
        raise InvalidInputError(f"server.host {server.host!r} is no address: {error.strerror}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except PermissionError:
        raise InvalidInputError(f"port {server.port} needs more rights", hint="--port 8000") from None
    except OSError as error:
        listener.close()
        raise ConflictError(
            f"cannot listen on {server.host} port {server.port}: {error.strerror}",
            hint=f"stop what listens there (ss -ltnp 'sport = :{server.port}'), or choose another --port",
        ) from None
    listener.listen(BACKLOG)
    listener.set_inheritable(True)
    return listener


def url_of(listener: socket.socket, *, tls: bool = False) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
