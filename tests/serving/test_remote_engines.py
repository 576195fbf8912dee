"""engine.urls through the gateway, with the real openai client; and what is refused before anything starts."""

import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from starlette.testclient import TestClient

from local_llm.adapters import AdapterRegistry, AdapterRun
from local_llm.errors import SettingsError
from local_llm.models import ModelStore
from local_llm.permissions import local_admin
from local_llm.settings import Settings, load_settings
from local_llm.state import open_state
from serving.gateway import create_app
from serving.readiness import HOLDS_SECONDS
from serving.remote_engines import remote_engines

from ..handmade_adapters import write_adapter, write_base
from .conftest import BASE
from .recording_engine import SmallEngine, listening
from .running_server import import_models, servers
from .test_start import assert_told, serve

TUNED = f"ft:{BASE}:local:support:abcd1234"
CHAT: Any = [{"role": "user", "content": "Hello"}]


def settings_of(home: Path, *urls: str, **options: object) -> Settings:
    overrides = {"engine.urls": list(urls), **{f"engine.{name}": value for name, value in options.items()}}
    return load_settings(environment={"LOCAL_LLM_HOME": str(home)}, overrides=overrides)


@contextmanager
def gateway_of(settings: Settings, scratch: Path) -> Iterator[TestClient]:
    ModelStore(settings.place.ensure().models).import_folder(write_base(scratch / "model"), name=BASE)
    with TestClient(create_app(settings), "http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


def client_of(gateway: TestClient) -> openai.OpenAI:
    return openai.OpenAI(api_key="none", base_url="http://127.0.0.1:8000/v1", http_client=gateway, max_retries=0)


def publish(settings: Settings, scratch: Path) -> str:
    state = open_state(settings.place)
    row = AdapterRegistry(settings, state).publish(
        write_adapter(scratch / "adapter"),
        base=ModelStore(settings.place.models).get(BASE),
        name=TUNED,
        project_id=local_admin(state.local_project_id()).project_id,
        run=AdapterRun(data_sha256="d", settings={}, metrics={}, versions={}),
    )
    state.close()
    return row.id


def test_chats_and_adapters_go_to_engines_elsewhere(tmp_path: Path) -> None:
    first, second = SmallEngine(), SmallEngine()
    with ExitStack() as stack, listening(first) as port:
        other = stack.enter_context(listening(second))
        urls = [f"http://127.0.0.1:{port}", f"http://127.0.0.1:{other}"]
        settings = settings_of(tmp_path / "home", *urls, remote_adapters_path="/mnt/adapters")
        with gateway_of(settings, tmp_path) as gateway:
            identifier, client = publish(settings, tmp_path), client_of(gateway)
            for _ in range(4):
                answer = client.chat.completions.create(model=BASE, messages=CHAT)
                assert answer.choices[0].message.content == f"I am {BASE}."
            assert (len(first.paths()), len(second.paths())) == (2, 2)

            answer = client.chat.completions.create(model=TUNED, messages=CHAT)
            assert answer.choices[0].message.content == f"I am {TUNED}."
            assert {**first.loaded, **second.loaded} == {TUNED: f"/mnt/adapters/{identifier}"}
            client.models.delete(TUNED)
            assert (first.loaded, second.loaded) == ({}, {})

            assert gateway.get("/ready").json()["engines"] == ["up", "up"]
            stack.close()  # the second engine's machine is gone
            time.sleep(HOLDS_SECONDS)
            ready = gateway.get("/ready").json()
            assert (ready["engine"], ready["engines"]) == ("up", ["up", "down"])
            assert client.chat.completions.create(model=BASE, messages=CHAT).choices


def test_an_engine_that_ends_in_mid_stream_is_told_as_an_event(tmp_path: Path) -> None:
    engine = SmallEngine()
    engine.die = True
    with listening(engine) as port:
        settings = settings_of(tmp_path / "home", f"http://127.0.0.1:{port}")
        with gateway_of(settings, tmp_path) as gateway:
            stream = client_of(gateway).chat.completions.create(model=BASE, messages=CHAT, stream=True)
            chunks = iter(stream)
            assert next(chunks).choices[0].delta.content == "I"
            with pytest.raises(openai.APIError, match="ended while it answered"):
                next(chunks)


def test_without_a_server_certificate_that_the_ca_signed_nothing_is_sent(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    engine = SmallEngine()
    with listening(engine, tls=tls) as port:
        url = f"https://127.0.0.1:{port}"
        for home, ca_file, works in (("trusting", certificate, True), ("careful", None, False)):
            settings = settings_of(tmp_path / home, url, ca_file=ca_file)
            (tmp_path / f"{home}-scratch").mkdir()
            with gateway_of(settings, tmp_path / f"{home}-scratch") as gateway:
                client = client_of(gateway)
                if works:
                    assert client.chat.completions.create(model=BASE, messages=CHAT).choices
                    engine.asked.clear()
                else:
                    with pytest.raises(openai.InternalServerError):
                        client.chat.completions.create(model=BASE, messages=CHAT)
                    assert engine.asked == []


def test_what_is_wrong_with_the_settings_is_told_before_anything_starts(tmp_path: Path) -> None:
    for url in (
        "engine:8000",
        "ftp://engine",
        "http://",
        "http://user:word@engine",
        "http://a b",
        "http://a:99999",
    ):
        with pytest.raises(SettingsError, match=r"engine\.urls"):
            settings_of(tmp_path, url)
    with pytest.raises(SettingsError, match="each engine once"):
        settings_of(tmp_path, "http://a:8000", "http://a:8000/")
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for options in (
        {"api_key_file": tmp_path / "nowhere"},
        {"api_key_file": empty},
        {"ca_file": tmp_path / "nowhere"},
        {"ca_file": empty},
    ):
        [name] = options
        with pytest.raises(SettingsError, match=name):
            remote_engines(settings_of(tmp_path, "https://engine:8000", **options))


def test_with_engines_elsewhere_none_is_started_here(settings: Settings, tmp_path: Path) -> None:
    """Nor is its memory asked for, nor does a job that stops "the engine" say so to clients."""
    import_models(settings, tmp_path)
    wrong = serve(settings, LOCAL_LLM_ENGINE__URLS="['https://a']", LOCAL_LLM_ENGINE__CA_FILE="/nowhere")
    assert_told(wrong, "engine.ca_file /nowhere", "PEM")
    engine = SmallEngine()
    with listening(engine) as port:
        variables = {
            "LOCAL_LLM_ENGINE__URLS": f"['http://127.0.0.1:{port}']",
            "LOCAL_LLM_ENGINE__KV_CACHE_GIB": "100000",
            "LOCAL_LLM_GPU__SHARING": "stop",
        }
        with servers(settings, **variables) as start:
            server = start()
            server.wait_for_engine("up")
            assert server.chat().json()["choices"][0]["message"]["content"] == f"I am {BASE}."
            assert not (settings.place.run / "serving" / "engine.process.json").exists()
            assert "the engines are elsewhere (engine.urls: 1)" in server.said.read_text()


def self_signed(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=engine"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key
