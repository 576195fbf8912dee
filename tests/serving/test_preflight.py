import socket

import pytest

from local_llm.engine_settings import EngineSettings
from local_llm.errors import ConflictError, InsufficientMemoryError, InvalidInputError
from local_llm.keys import KeyStore
from local_llm.models import FileRecord, Manifest, Model
from local_llm.settings import ServerSettings
from serving.engine import require_memory
from serving.preflight import bind, require_keys_beyond_loopback, url_of


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_loopback_needs_no_key(host: str, state) -> None:
    require_keys_beyond_loopback(host, KeyStore(state))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gpu-box"])
def test_any_other_address_needs_one(host: str, state, admin) -> None:
    keys = KeyStore(state)
    with pytest.raises(InvalidInputError, match="loopback only"):
        require_keys_beyond_loopback(host, keys)
    keys.create(admin.project_id, "first", role="admin")
    require_keys_beyond_loopback(host, keys)


def test_a_port_in_use_is_told_with_what_mends_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConflictError, match=f"port {port}") as caught:
            bind(ServerSettings(port=port))
    assert "--port" in (caught.value.hint or "")


def test_port_zero_is_chosen_by_the_system_and_told() -> None:
    with bind(ServerSettings(port=0)) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert not url_of(listener).endswith(":0")


def test_an_engine_that_does_not_fit_is_refused_with_what_would_fit(tmp_path) -> None:
    manifest = Manifest("m", "base", "test", "MIT", 0, {"w": FileRecord("0" * 64, 1024**3)})
    with pytest.raises(InsufficientMemoryError, match="100000 key-value cache") as caught:
        require_memory(EngineSettings(kv_cache_gib=100_000), Model(tmp_path, manifest))
    assert "engine.kv_cache_gib" in (caught.value.hint or "")
