"""Entry of the index server: `python -m index [--settings FILE]`."""

import argparse
import sys
from pathlib import Path

from local_llm import offline
from local_llm.errors import LocalLLMError


def main() -> int:
    offline.apply()
    parser = argparse.ArgumentParser(prog="python -m index", description="Serves the index on a Unix socket.")
    parser.add_argument("--settings", type=Path, help="settings file (TOML)")
    arguments = parser.parse_args()

    from index.server import run
    from local_llm.settings import load_settings

    try:
        run(load_settings(arguments.settings))
    except LocalLLMError as error:
        hint = f"\n  try: {error.hint}" if error.hint else ""
        print(f"error: {error.message}{hint}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
