"""uvicorn as we run it: our limits on connections, HTTPS, and an end that lets running answers come to theirs."""

import asyncio
import logging
import resource
import socket
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from local_llm.errors import LocalLLMError
from local_llm.settings import ServerSettings
from serving.protocol import GuardedProtocol
from serving.services import Services
from serving.tls import LOOK_SECONDS, Certificate, certificate_of

# Beside connections: the databases, logs, uploads on their way.
MORE_DESCRIPTORS = 256

log = logging.getLogger("local_llm.gateway")


class GatewayServer(uvicorn.Server):
    """Told to stop, it says so at /ready for a while, then takes no more connections, then waits for the rest."""

    def __init__(self, config: uvicorn.Config, services: Any, notice_seconds: float):
        """`services` is called when the end begins."""
        super().__init__(config)
        self._services = services
        self._notice_seconds = notice_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        services: Services = self._services()
        services.draining = True
        await asyncio.sleep(self._notice_seconds)
        await super().shutdown(sockets)


def make_server(app: ASGIApp, services: Any, server: ServerSettings) -> GatewayServer:
    """Raises: SettingsError for a certificate that cannot be used."""
    certificate = certificate_of(server)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=partial(GuardedProtocol, server),  # type: ignore[arg-type]
        ws="none",
        access_log=False,
        server_header=False,
        timeout_keep_alive=server.keep_alive_seconds,
        timeout_graceful_shutdown=server.drain_seconds,
        ssl_context_factory=(lambda *_: certificate.context) if certificate else None,
        callback_notify=partial(_renew, certificate) if certificate else None,
        timeout_notify=LOOK_SECONDS,
    )
    return GatewayServer(config, services, server.drain_notice_seconds)


def allow_descriptors(server: ServerSettings) -> None:
    """Two for a connection, ours to the engine being one, as far as the system lets us."""
    wanted = 2 * server.max_connections + MORE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _renew(certificate: Certificate) -> None:
    try:
        if certificate.renew():
            log.warning("the certificate was renewed")
    except LocalLLMError as error:
        log.error("the certificate was changed and cannot be used: %s; the old one stays", error.message)
