"""Engines elsewhere, as engine.urls and the settings beside it name them."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local_llm.errors import SettingsError
from local_llm.settings import Settings


@dataclass(frozen=True)
class RemoteEngine:
    number: int  # its place in engine.urls, from 1: what clients and /ready may know of it
    url: str
    headers: Mapping[str, str]
    tls: ssl.SSLContext | None  # None: http
    adapters_path: str  # where it sees our adapters folder


def remote_engines(settings: Settings) -> list[RemoteEngine]:
    """Reads the key and the certificates they share.

    Raises: SettingsError.
    """
    engine = settings.engine
    headers = {"authorization": f"Bearer {_key(engine.api_key_file)}"} if engine.api_key_file else {}
    adapters_path = (engine.remote_adapters_path or str(settings.place.adapters)).rstrip("/")
    return [
        RemoteEngine(
            number, url, headers, _tls(engine.ca_file) if url.startswith("https:") else None, adapters_path
        )
        for number, url in enumerate(engine.urls, start=1)
    ]


def _key(file: Path) -> str:
    try:
        key = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"engine.api_key_file {file} cannot be read: {error}") from None
    if not key or not key.isprintable() or " " in key:
        raise SettingsError(f"engine.api_key_file {file}: expected one line that holds the key and nothing else")
    return key


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"engine.ca_file {ca_file} cannot be read: {error}", hint="name a file of certificates in PEM"
        ) from None
