"""Entry of the command line: `local-llm`, also `python -m local_llm`."""

import sys

from local_llm import offline


def main() -> None:
    offline.apply()
    from local_llm.cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()
