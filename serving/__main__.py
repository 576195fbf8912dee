"""`python -m serving`: the OpenAI-compatible endpoint with everything behind it."""

import argparse
import sys
from pathlib import Path

from local_llm import offline


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    parser.add_argument("--host", help="address to listen on (default: server.host, 127.0.0.1)")
    parser.add_argument("--port", help="port to listen on (default: server.port, 8000)")
    parser.add_argument("--settings", type=Path, help="settings file (TOML)")
    arguments = parser.parse_args()
    offline.apply()

    from local_llm.errors import SettingsError
    from local_llm.settings import load_settings
    from serving.supervisor import serve

    overrides = {"server.host": arguments.host, "server.port": arguments.port}
    try:
        settings = load_settings(arguments.settings, overrides=overrides)
    except SettingsError as error:
        print(f"error: {error.message}\n  try: {error.hint}", file=sys.stderr)  # noqa: T201
        return 1
    return serve(settings, arguments.settings)


if __name__ == "__main__":
    sys.exit(main())
