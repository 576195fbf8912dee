"""HTTPS: the context that connections are made with, and its certificate renewed without a restart."""

import ssl
from pathlib import Path

from local_llm.errors import SettingsError
from local_llm.settings import ServerSettings

# How often the files are looked at for a renewed certificate.
LOOK_SECONDS = 30


class Certificate:
    """The server's own. `context` stays the same object: connections that are open keep what they began with."""

    def __init__(self, server: ServerSettings):
        """Raises: SettingsError for what no client could be served with."""
        assert server.tls_certificate is not None
        assert server.tls_key is not None
        self._certificate, self._key = server.tls_certificate, server.tls_key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        _load(self.context, self._certificate, self._key)
        self._seen = self._changed_at()
        if server.tls_client_ca is not None:
            _require_clients_of(self.context, server.tls_client_ca)

    def renew(self) -> bool:
        """Takes up files that changed; whether it did. A pair that cannot be used leaves what is in use.

        Raises: SettingsError for such a pair, once.
        """
        changed_at = self._changed_at()
        if changed_at == self._seen:
            return False
        self._seen = changed_at
        # Tried on another context first: loading half a pair would break the one in use.
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._certificate, self._key)
        _load(self.context, self._certificate, self._key)
        return True

    def _changed_at(self) -> tuple[int, int]:
        return _changed_at(self._certificate), _changed_at(self._key)


def certificate_of(server: ServerSettings) -> Certificate | None:
    """None: the server speaks plain HTTP. Raises: SettingsError."""
    if server.tls_certificate is None and server.tls_key is None:
        if server.tls_client_ca is not None:
            raise SettingsError(
                "settings: server.tls_client_ca is given without a certificate of the server's own",
                hint="set server.tls_certificate and server.tls_key too",
            )
        return None
    for name in ("tls_certificate", "tls_key"):
        if getattr(server, name) is None:
            raise SettingsError(f"settings: server.{name} is missing", hint="HTTPS needs both, or neither for HTTP")
    return Certificate(server)


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    for name, path in (("tls_certificate", certificate), ("tls_key", key)):
        _require_readable(name, path)
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except ssl.SSLError as error:
        reason = error.reason or str(error)
        if reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(
                f"settings: server.tls_key = {key} is not the key of {certificate}",
                hint=f"openssl x509 -noout -pubkey -in {certificate}; openssl pkey -pubout -in {key}",
            ) from None
        raise SettingsError(
            f"settings: {certificate} and {key} cannot be used as server.tls_certificate and tls_key: {reason}",
            hint="both must be PEM; the certificate first, then those it comes from",
        ) from None


def _no_passphrase() -> str:
    raise SettingsError(
        "settings: server.tls_key has a passphrase, which nobody is there to type",
        hint="openssl pkey -in KEY -out PLAIN_KEY",
    )


def _require_clients_of(context: ssl.SSLContext, authority: Path) -> None:
    _require_readable("tls_client_ca", authority)
    try:
        context.load_verify_locations(authority)
    except ssl.SSLError as error:
        raise SettingsError(
            f"settings: server.tls_client_ca = {authority} holds no certificates: {error.reason or error}",
            hint="expected one or more certificates as PEM",
        ) from None
    context.verify_mode = ssl.CERT_REQUIRED


def _require_readable(name: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise SettingsError(
            f"settings: server.{name} = {path} cannot be read: {error.strerror}", hint=f"ls -l {path}"
        ) from None


def _changed_at(path: Path) -> int:
    """0: it is not there, or not now."""
    return path.stat().st_mtime_ns if path.exists() else 0
