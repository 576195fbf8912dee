"""Two nodes of Ray on this machine, each with a loopback address of its own: as docs/retrieval.md starts them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from local_llm import offline

RAY = Path(sys.executable).parent / "ray"
HEAD, OTHER = "127.0.0.2", "127.0.0.3"
REPOSITORY = Path(__file__).parents[3]
TOKEN = "a token of these tests"


class RayCluster:
    def __init__(self, folder: Path):
        self._folder = folder
        # Ray would look for a cloud that it runs in where no such file is.
        (folder / "ray_bootstrap_config.yaml").write_text("provider: {type: local}\n")
        with socket.create_server((HEAD, 0)) as listener:
            port = listener.getsockname()[1]
        self.address = f"{HEAD}:{port}"
        self.environment = {
            **offline.environment(),
            "HOME": str(folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            # Its workers find our packages as this process does.
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
        }

    def start(self) -> None:
        port = self.address.rpartition(":")[2]
        self._ray("start", "--head", "--node-ip-address", HEAD, "--port", port, "--include-dashboard", "false",
                  "--temp-dir", str(self._folder / "ray"))  # fmt: skip
        self._ray("start", "--address", self.address, "--node-ip-address", OTHER)

    def stop(self) -> None:
        """Those of this cluster alone: `ray stop` would end all of this machine."""
        subprocess.run(["pkill", "-KILL", "-f", str(self._folder)], check=False)

    def _ray(self, verb: str, *options: str) -> None:
        line = [str(RAY), verb, *options, "--num-cpus", "1", "--disable-usage-stats"]
        done = subprocess.run(line, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
