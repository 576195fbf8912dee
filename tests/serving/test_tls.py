"""HTTPS with a certificate authority of one's own, clients that must show theirs, renewal without a restart."""

import asyncio
import contextlib
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

from local_llm.cli.serving import server_trust
from local_llm.errors import SettingsError
from local_llm.settings import ServerSettings, load_settings
from serving.http_server import _renew
from serving.tls import Certificate, certificate_of

from .real_gateway import CHAT, Running, engine_at, running
from .slow_engine import SlowEngine


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@dataclass(frozen=True)
class Authority:
    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    def make(self) -> "Authority":
        self.folder.mkdir(exist_ok=True)
        key = self.folder / "ca.key"
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *("-subj", "/CN=Our authority", "-keyout", key, "-out", self.certificate),
        )
        return self

    def sign(self, name: str, into: tuple[Path, Path]) -> tuple[Path, Path]:
        """A certificate and its key, for 127.0.0.1."""
        certificate, key = into
        request, more = self.folder / "request.pem", self.folder / "more.cnf"
        more.write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", key, "-out", request),
        )
        openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.folder / "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", more, "-out", certificate),
        )
        return into


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority")).make()


@pytest.fixture
def pair(authority: Authority, tmp_path: Path) -> tuple[Path, Path]:
    return authority.sign("server", (tmp_path / "server.pem", tmp_path / "server.key"))


@pytest.fixture
def server(pair: tuple[Path, Path], tmp_path: Path) -> Iterator[Running]:
    engine = SlowEngine(pieces=20, pause_seconds=0.05)
    with (
        running(tmp_path, server__tls_certificate=pair[0], server__tls_key=pair[1]) as made,
        engine_at(made.settings.place.socket("engine"), engine.answer),
    ):
        yield made


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.certificate)


def test_clients_that_trust_the_authority_are_served(server: Running, authority: Authority) -> None:
    with httpx.Client(verify=trusting(authority)) as trusted:
        client = openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", http_client=trusted, max_retries=0)
        assert client.chat.completions.create(**CHAT).choices
        assert len(list(client.chat.completions.create(**CHAT, stream=True))) == 20
        assert trusted.get(f"{server.url}/health").status_code == 200


def test_our_own_commands_know_the_server_by_its_certificate(
    server: Running, authority: Authority, tmp_path: Path
) -> None:
    assert httpx.get(f"{server.url}/health", verify=server_trust(server.settings)).status_code == 200
    other = authority.sign("other", (tmp_path / "other.pem", tmp_path / "other.key"))
    strange = load_settings(environment={}, overrides={"server.tls_certificate": other[0]})
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{server.url}/health", verify=server_trust(strange))


def test_others_are_not(server: Running) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{server.url}/health")
    with pytest.raises(httpx.HTTPError):
        httpx.get(server.url.replace("https", "http") + "/health")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_of_tls_are_refused(server: Running, authority: Authority) -> None:
    context = trusting(authority)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health", verify=context)


def test_with_mutual_tls_a_client_shows_its_certificate(
    authority: Authority, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    own = authority.sign("ana", (tmp_path / "ana.pem", tmp_path / "ana.key"))
    files = {"server__tls_certificate": pair[0], "server__tls_key": pair[1]}
    with running(tmp_path, **files, server__tls_client_ca=authority.certificate) as server:
        context = trusting(authority)
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{server.url}/health", verify=context)
        context.load_cert_chain(*own)
        assert httpx.get(f"{server.url}/health", verify=context).status_code == 200


def test_a_renewed_certificate_is_shown_to_new_connections_and_open_ones_go_on(
    server: Running, authority: Authority, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    renew = server.server.config.callback_notify
    assert renew is not None
    certificate: Certificate = renew.args[0]  # type: ignore[attr-defined]
    with httpx.Client(verify=trusting(authority)) as trusted:
        client = openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", http_client=trusted, max_retries=0)
        stream = client.chat.completions.create(**CHAT, stream=True)
        next(stream)
        before = shown_by(server, authority)
        assert not certificate.renew()
        authority.sign("renewed", pair)
        assert certificate.renew()
        assert shown_by(server, authority) != before
        assert len(list(stream)) == 19


def shown_by(server: Running, authority: Authority) -> str:
    with server.connect() as plain, trusting(authority).wrap_socket(plain, server_hostname="127.0.0.1") as secure:
        return str(secure.getpeercert()["subject"])  # type: ignore[index]


def test_a_renewal_that_cannot_be_used_leaves_the_old_one(authority: Authority, pair: tuple[Path, Path]) -> None:
    certificate = Certificate(ServerSettings(tls_certificate=pair[0], tls_key=pair[1]))
    pair[1].write_text("half a key")
    with pytest.raises(SettingsError):
        certificate.renew()
    assert not certificate.renew()  # told once
    authority.sign("whole", pair)
    assert certificate.renew()


def test_whatever_befalls_a_look_for_a_renewal_the_server_goes_on(
    pair: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    class Unlucky(Certificate):
        def renew(self) -> bool:
            raise failure

    certificate = Unlucky(ServerSettings(tls_certificate=pair[0], tls_key=pair[1]))
    failures: list[Exception] = [PermissionError("no way in"), ssl.SSLError("half a file"), SettingsError("wrong")]
    for failure in failures:
        asyncio.run(_renew(certificate))
        assert str(failure) in caplog.messages[-1]


def test_a_handshake_that_does_not_go_on_is_cut_off(pair: tuple[Path, Path], tmp_path: Path) -> None:
    files = {"server__tls_certificate": pair[0], "server__tls_key": pair[1]}
    with running(tmp_path, **files, server__header_timeout_seconds=0.5) as server, server.connect() as plain:
        plain.sendall(b"\x16\x03\x01\x02\x00")  # the beginning of a greeting
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert plain.recv(100) == b""
        assert time.monotonic() - began < 5


def test_what_cannot_be_used_is_told_before_anything_starts(
    authority: Authority, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    certificate, key = pair
    other = authority.sign("other", (tmp_path / "other.pem", tmp_path / "other.key"))
    rubbish, locked = tmp_path / "rubbish.pem", tmp_path / "locked.key"
    rubbish.write_text("nothing")
    openssl("ec", "-in", key, "-aes256", "-passout", "pass:word", "-out", locked)
    for given, message in (
        ({"tls_certificate": certificate}, "tls_key is missing"),
        ({"tls_key": key}, "tls_certificate is missing"),
        ({"tls_client_ca": certificate}, "without a certificate"),
        ({"tls_certificate": tmp_path / "none.pem", "tls_key": key}, "cannot be read"),
        ({"tls_certificate": certificate, "tls_key": other[1]}, "is not the key of"),
        ({"tls_certificate": rubbish, "tls_key": key}, "cannot be used"),
        ({"tls_certificate": certificate, "tls_key": locked}, "passphrase"),
        ({"tls_certificate": certificate, "tls_key": key, "tls_client_ca": rubbish}, "holds no certificates"),
    ):
        with pytest.raises(SettingsError, match=message) as caught:
            certificate_of(ServerSettings(**given))
        assert caught.value.hint
    assert certificate_of(ServerSettings()) is None
