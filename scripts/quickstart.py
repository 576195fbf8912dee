"""Trains, indexes and serves the sample world, and asks one question of all four strategies.

Every step is a command of `local-llm`, printed before it runs. What is there already is reused.
The last line on stdout is one JSON object with the answers, the citations and the timings.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_llm import ledger, offline, processes
from local_llm.cli.serving import server_url
from local_llm.costs.answers import AnswersMeasured, cost_one_at_a_time
from local_llm.errors import InvalidInputError, LocalLLMError, UnavailableError
from local_llm.fileio import sha256_of
from local_llm.hardware import this_hardware
from local_llm.keys import KeyStore
from local_llm.profiles import RETRIEVING, STRATEGIES, TUNED, Strategy
from local_llm.settings import Settings, load_settings
from local_llm.state import open_state

WORLD = Path(__file__).parent.parent / "examples" / "quillon"
SUFFIX = "quillon-support"
COLLECTION = "quillon"
QUESTION = "How long must I hold trigger and side key to factory reset a scanner?"
# A model this small loses the thread in long contexts: three passages instead of five.
PASSAGES = 3
MAX_ANSWER_TOKENS = 120
# Two passes over 297 examples teach the style (tests/contract/test_style.py measures it); "auto" would take three.
TRAINING = ("--epochs", "2")
READY_TIMEOUT_SECONDS = 600


@dataclass
class Answer:
    text: str
    citations: list[dict[str, Any]]
    prompt_tokens: int
    completion_tokens: int
    seconds: float


@dataclass
class Quickstart:
    settings: Settings
    timings_seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Raises: LocalLLMError."""
        started = time.perf_counter()
        self._require_key()
        with self._timed("models"):
            command("models", "import", "embedded")
        with self._timed("training"):
            model = self._adapter()
        with self._timed("index"):
            self._index()
        self._profiles(model)
        answers = self._served_answers()
        self.timings_seconds["total"] = round(time.perf_counter() - started, 1)
        self._print(answers)
        return {
            "answers": {strategy: answer.text for strategy, answer in answers.items()},
            "citations": answers["rag"].citations + answers["hybrid"].citations,
            "fine_tuned_model": model,
            "timings_seconds": self.timings_seconds,
        }

    def _require_key(self) -> None:
        """On a box with keys the questions at the end need one: better told before the training."""
        state = open_state(self.settings.place)
        needed = KeyStore(state).any_created()
        state.close()
        if needed and not os.environ.get("OPENAI_API_KEY"):
            raise InvalidInputError("this box has keys", hint="set OPENAI_API_KEY to one of them")

    def _adapter(self) -> str:
        """The finished adapter trained on this very file, or a new one."""
        data = WORLD / "training.jsonl"
        for row in command("models", "list"):
            finished = row["kind"] == "adapter" and row["step_number"] is None  # else it is a checkpoint
            of_this_base = row.get("base") == self.settings.engine.model
            if finished and of_this_base and row["data_sha256"] == sha256_of(data):
                say(f"  reusing {row['name']}")
                return str(row["name"])
        result = command("train", "adapter", str(data), "--suffix", SUFFIX, *TRAINING)
        return str(result["fine_tuned_model"])

    def _index(self) -> None:
        if not any(row["name"] == COLLECTION for row in command("index", "list")):
            command("index", "create", COLLECTION)
        command("index", "add", COLLECTION, str(WORLD / "documents"))

    def _profiles(self, model: str) -> None:
        for strategy in STRATEGIES:
            options = ["--strategy", strategy]
            if strategy in TUNED:
                options += ["--model", model]
            if strategy in RETRIEVING:
                options += ["--collection", COLLECTION, "--k", str(PASSAGES)]
            command("profiles", "set", profile_name(strategy), *options)

    def _served_answers(self) -> dict[Strategy, Answer]:
        say("$ python -m serving --port 0")
        records = self.settings.place.run / "quickstart"
        server = processes.start_child(
            "serving",
            [sys.executable, "-m", "serving", "--port", "0"],
            environment=offline.environment(),
            log=None,
            records=records,
        )
        try:
            with self._timed("server_start"):
                self._wait_until_ready(server)
            with self._timed("answers"):
                return {strategy: self._ask(strategy) for strategy in STRATEGIES}
        finally:
            processes.stop_child(server, grace_seconds=30)
            processes.end_leftovers(records)

    def _wait_until_ready(self, server: subprocess.Popen[bytes]) -> None:
        import httpx

        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if server.poll() is not None:
                raise UnavailableError(
                    "the server did not start", hint=f"see above, and {self.settings.place.logs / 'engine.log'}"
                )
            try:
                if httpx.get(f"{server_url(self.settings)}/ready", timeout=5, trust_env=False).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        raise UnavailableError(f"the server was not ready within {READY_TIMEOUT_SECONDS} s")

    def _ask(self, strategy: Strategy) -> Answer:
        import openai

        client = openai.OpenAI(
            base_url=f"{server_url(self.settings)}/v1",
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
            http_client=openai.DefaultHttpxClient(trust_env=False),
        )
        started = time.perf_counter()
        reply = client.chat.completions.create(
            model=profile_name(strategy),
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=MAX_ANSWER_TOKENS,
            temperature=0,
        )
        seconds = time.perf_counter() - started
        message = reply.choices[0].message.model_dump()
        assert reply.usage is not None
        return Answer(
            message["content"],
            message.get("citations") or [],
            reply.usage.prompt_tokens,
            reply.usage.completion_tokens,
            seconds,
        )

    def _print(self, answers: dict[Strategy, Answer]) -> None:
        print(f"\nQuestion: {QUESTION}\n")
        for strategy, answer in answers.items():
            print(f"--- {strategy} ({answer.seconds:.1f} s)\n{answer.text.strip()}")
            for citation in answer.citations:
                print(f"    [{citation['index']}] {cited(citation)}")
            print()
        print(self._cost_line(answers))

    def _cost_line(self, answers: dict[Strategy, Answer]) -> str:
        measured = AnswersMeasured(
            len(answers),
            sum(answer.seconds for answer in answers.values()),
            sum(answer.prompt_tokens for answer in answers.values()),
            sum(answer.completion_tokens for answer in answers.values()),
        )
        price = self.settings.cost.machine_usd_per_hour
        cost = cost_one_at_a_time(measured, price)
        state = open_state(self.settings.place)
        facts = {
            "answers": measured.answers,
            "seconds": round(measured.seconds, 3),
            "prompt_tokens": measured.prompt_tokens,
            "completion_tokens": measured.completion_tokens,
            "concurrency": 1,
        }
        ledger.record(state, state.local_project_id(), "answers", facts)
        state.close()
        return (
            f"Cost: {measured.answers} answers, one at a time, took {measured.seconds:.1f} s for "
            f"{measured.prompt_tokens} tokens in and {measured.completion_tokens} out "
            f"(measured here: {this_hardware()}).\n"
            f"At ${price:.2f} an hour for this machine (assumed: set cost.machine_usd_per_hour) that is "
            f"${cost.usd_per_answer:.6f} an answer, ${cost.usd_per_million_tokens:.2f} per million tokens.\n"
            "On a GPU: not measured, and nothing above speaks of one (assumed until it was run there)."
        )

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.timings_seconds[name] = round(time.perf_counter() - started, 1)


def command(*arguments: str) -> Any:
    """Runs `local-llm ARGUMENTS`, shown first; returns what it printed as JSON. Its talk goes to stderr."""
    say(f"$ local-llm {' '.join(arguments)}")
    line = [sys.executable, "-m", "local_llm", *arguments, "--json"]
    done = subprocess.run(line, stdout=subprocess.PIPE, env=offline.environment(), check=False)
    if done.returncode != 0:
        raise LocalLLMError(f"this command failed: local-llm {' '.join(arguments)}")
    return json.loads(done.stdout)


def profile_name(strategy: Strategy) -> str:
    return f"quillon-{strategy.replace('_', '-')}"


def cited(citation: dict[str, Any]) -> str:
    page = f" page {citation['page']}" if citation["page"] else ""
    return f"{citation['document']}{page}, characters {citation['start']}-{citation['end']}: {citation['quote']!r}"


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main() -> int:
    offline.apply()
    try:
        result = Quickstart(load_settings()).run()
    except LocalLLMError as error:
        say(f"error: {error.message}" + (f"\n  try: {error.hint}" if error.hint else ""))
        return 1
    print(json.dumps(result, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
