"""The ways compared, and how each is started: on a port of its own, with nothing set against it."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from index_bench import peers
from safetensors.numpy import save_file

from gateway_bench.world import MODEL, Way, WayUnavailableError, World, clean_environment, free_port, listening
from local_llm.fileio import write_json
from local_llm.keys import KeyStore
from local_llm.models import ModelStore
from local_llm.settings import Settings, load_settings
from local_llm.state import open_state

LITELLM = ("litellm[proxy]==1.106.*",)
# One line each for what a gateway must not do on the way: log, buffer, close connections.
NGINX = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
error_log stderr warn;
{user}
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream engine {{ server unix:{socket}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    keepalive_requests 100000000;
    client_max_body_size 16m;
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""
# Ours asks an engine no more at once than it is set to (256 by default) and has the rest wait: here all are held.
PLACES = "2048"
LITELLM_CONFIG = """\
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "http://127.0.0.1:{port}/v1", api_key: none}}
litellm_settings: {{set_verbose: false, request_timeout: 600, telemetry: false}}
general_settings: {{master_key: {key}}}
"""


def direct(world: World) -> Way:
    return Way("direct", ("127.0.0.1", world.port), world.engine.pid, {})


def nginx(world: World) -> Way:
    program = nginx_program(world.work)
    folder, port = world.work / "nginx-run", free_port()
    folder.mkdir(exist_ok=True)
    user = "user root;" if os.geteuid() == 0 else ""  # else its worker could not reach the engine's socket
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, socket=world.socket, port=port, user=user))
    child = world.start("nginx", [program, "-p", folder, "-c", config, "-e", "stderr"])
    version = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    return world.ready("nginx", ("127.0.0.1", port), child, nginx=version.strip().rpartition("/")[2])


def nginx_program(work: Path) -> Path:
    """nginx of this machine, or Debian's package unpacked in the work folder.

    Raises: WayUnavailableError.
    """
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    unpacked = work / "nginx" / "usr" / "sbin" / "nginx"
    if not found and not unpacked.exists() and shutil.which("apt-get"):
        subprocess.run(["apt-get", "--quiet", "download", "nginx"], cwd=work, capture_output=True, check=False)
        for package in work.glob("nginx_*.deb"):
            subprocess.run(["dpkg", "-x", package, work / "nginx"], check=True)
    program = Path(found) if found else unpacked
    try:
        subprocess.run([program, "-v"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise WayUnavailableError(
            f"there is no nginx that runs ({error}); install it: apt-get update && apt-get install nginx-light"
        ) from None
    return program


def litellm(world: World) -> Way:
    """One worker, the key checked, its prices read from its own files."""
    try:
        python = peers.interpreter(world.work, "litellm", LITELLM)
    except peers.PeersUnavailableError as error:
        raise WayUnavailableError(f"LiteLLM cannot be installed: {error}") from None
    config, port = world.work / "litellm.yaml", free_port()
    config.write_text(LITELLM_CONFIG.format(model=MODEL, port=world.port, key=world.key))
    line = [python.with_name("litellm"), "--config", config, "--host", "127.0.0.1", "--port", port]
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"}
    environment = {**clean_environment(), **quiet, "PYTHONPATH": ""}
    child = world.start("litellm", [*line, "--num_workers", 1], environment=environment)
    ask = "import importlib.metadata as m; print(m.version('litellm'))"
    version = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    return world.ready("litellm", ("127.0.0.1", port), child, litellm=version)


def bare(world: World) -> Way:
    listener = listening()
    address = listener.getsockname()
    line = [sys.executable, "-m", "gateway_bench.passthrough", "--socket", world.socket, "--fd", listener.fileno()]
    child = world.start("bare", line, listener=listener)
    packages = ("starlette", "uvicorn", "uvloop", "httptools", "aiohttp")
    return world.ready("bare", address, child, **{name: importlib.metadata.version(name) for name in packages})


def ours(world: World) -> Way:
    """The gateway process of a server, on a home of its own with a key: keys are checked."""
    listener = listening()
    address = listener.getsockname()
    line = [sys.executable, "-m", "serving.gateway", "--fd", listener.fileno()]
    line += ["--settings", world.settings_file] if world.settings_file else []
    places = {} if world.settings_file else {"LOCAL_LLM_SERVER__MAX_RUNNING_REQUESTS": PLACES}
    environment = clean_environment(LOCAL_LLM_HOME=str(world.work / "home"), **places)
    child = world.start("ours", line, listener=listener, environment=environment)
    return world.ready("ours", address, child, **{"local-llm": importlib.metadata.version("local-llm")})


WAYS: dict[str, Callable[[World], Way]] = {
    "direct": direct, "nginx": nginx, "litellm": litellm, "bare": bare, "ours": ours,
}  # fmt: skip


def made_home(root: Path) -> tuple[Settings, str]:
    """A home with a base model that has the right names in it, and a new key's secret."""
    settings = load_settings(environment={"LOCAL_LLM_HOME": str(root)})
    store = ModelStore(settings.place.ensure().models)
    if not (settings.place.models / MODEL).exists():
        store.import_folder(_tiny_base(root.with_name("tiny")), name=MODEL)
    state = open_state(settings.place)
    try:
        key = KeyStore(state).create(state.local_project_id(), "bench_gateway", role="member")
    finally:
        state.close()
    return settings, key.secret


def _tiny_base(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {"architectures": ["LlamaForCausalLM"]})
    weight = np.zeros((32, 8), dtype=np.float32)
    save_file({"model.embed_tokens.weight": weight}, folder / "model.safetensors")
    return folder
