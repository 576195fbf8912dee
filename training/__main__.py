"""`python -m training`: the trainer. `python -m training run JOB --lease TOKEN`: its child, for one job.
`python -m training retriever FOLDER`: the child of `local-llm train retriever`.

With training.processes > 1 the child is the launcher of several such processes (training/launch.py).
"""

import argparse
import signal
import sys
import threading
from pathlib import Path

from local_llm import offline
from local_llm.errors import LocalLLMError
from training.failures import StoppedError


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 an error told on stderr, 143 stopped by SIGTERM after a checkpoint."""
    offline.apply()
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        _start(options)
    except StoppedError:
        return 128 + signal.SIGTERM
    except LocalLLMError as error:
        hint = f"\n  try: {error.hint}" if error.hint else ""
        print(f"error: {error.message}{hint}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Takes queued fine-tuning jobs.")
    parser.add_argument("--settings", type=Path, help="settings file (TOML)")
    commands = parser.add_subparsers(dest="command")
    run = commands.add_parser("run", help="run one job that the trainer has claimed")
    run.add_argument("job_id")
    run.add_argument("--lease", required=True, help="the token under which it was claimed")
    retriever = commands.add_parser("retriever", help="train the encoder that a folder tells of")
    retriever.add_argument("folder", type=Path)
    return parser


def _start(options: argparse.Namespace) -> None:
    from local_llm.settings import load_settings
    from local_llm.state import open_state

    settings = load_settings(options.settings)
    if options.command == "retriever":
        from training.retriever.child import run_child

        run_child(options.folder, settings, _told_to_stop())
        return
    state = open_state(settings.place)
    try:
        if options.command == "run":
            from local_llm.processes import end_with_parent
            from training.launch import is_launched
            from training.leases import Lease
            from training.run import run_job

            if is_launched():  # in a session of its own: nothing else would end it with its launcher
                end_with_parent()
            run_job(settings, state, Lease(options.job_id, options.lease), stop=_told_to_stop())
        else:
            from training.trainer import serve_until_signalled

            serve_until_signalled(settings, state, options.settings)
    finally:
        state.close()


def _told_to_stop() -> threading.Event:
    """Set by SIGTERM: the run then ends after its step."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop


if __name__ == "__main__":
    sys.exit(main())
