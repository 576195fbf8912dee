"""uvicorn as we run it: our limits on connections, HTTPS, and an end that lets running answers come to theirs."""

import asyncio
import logging
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

    def __init__(self, config: uvicorn.Config, services: Any, limits: ServerSettings):
        """`services` is called when the end begins."""
        super().__init__(config)
        self._services = services
        self._limits = limits

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """With a bound for handshakes: uvicorn leaves it at a minute, in which nobody counts the connection."""
        await super().startup([])
        loop = asyncio.get_running_loop()
        for listener in sockets or []:
            server = await loop.create_server(
                self._protocol,
                sock=listener,
                ssl=self.config.ssl,
                backlog=self.config.backlog,
                ssl_handshake_timeout=self._limits.header_timeout_seconds if self.config.ssl else None,
            )
            self.servers.append(server)

    def _protocol(self) -> GuardedProtocol:
        return GuardedProtocol(
            self._limits, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        services: Services = self._services()
        services.draining = True
        await asyncio.sleep(self._limits.drain_notice_seconds)
        await super().shutdown(sockets)


def make_server(app: ASGIApp, services: Any, server: ServerSettings) -> GatewayServer:
    """Raises: SettingsError for a certificate that cannot be used."""
    certificate = certificate_of(server)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        ws="none",
        access_log=False,
        server_header=False,
        timeout_keep_alive=server.keep_alive_seconds,
        timeout_graceful_shutdown=server.drain_seconds,
        ssl_context_factory=(lambda *_: certificate.context) if certificate else None,
        callback_notify=partial(_renew, certificate) if certificate else None,
        timeout_notify=LOOK_SECONDS,
    )
    return GatewayServer(config, services, server)


def descriptors_for(server: ServerSettings) -> int:
    """Two for a connection, ours to the engine being one."""
    return 2 * server.max_connections + MORE_DESCRIPTORS


async def _renew(certificate: Certificate) -> None:
    try:
        if certificate.renew():
            log.warning("the certificate was renewed")
    except (LocalLLMError, OSError, ValueError) as error:  # whatever comes out of here ends the server
        log.error("the certificate was changed and cannot be used: %s; the old one stays", error)
