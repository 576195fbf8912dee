"""The engine with adapters and what the gateway adds: tokens a second, a new adapter's first answer, restarts."""

import statistics
import time
from itertools import count
from typing import Any

from acceptance.bench import Bench, Figures, Note
from acceptance.served_home import MOST_LORAS, ServedHome, ask

ADAPTERS = (1, 4, 8)
# GiB of the GPU for weights, slots of adapters and a cache worth having.
LARGE_GIB = 40
ROUNDS = 3


def run(bench: Bench, note: Note) -> Figures:
    clients, answers, tokens = (2, 4, 8) if bench.small else (64, 256, 128)
    shape = "little" if bench.small else "llama-3-8b" if bench.memory_gib >= LARGE_GIB else "llama-3.2-1b"
    home = ServedHome(bench, "served", shape)
    adapters = [home.publish_random(number) for number in range(MOST_LORAS)]
    load = Load(clients, answers, tokens)
    figures: Figures = {"shape": shape, "clients": clients, "answers": answers, "tokens_per_answer": tokens}
    began = time.monotonic()
    with home.server() as address:
        figures["first_start_seconds"] = time.monotonic() - began
        note(figures)
        # Loads all adapters, and lets the engine make its kernels.
        load.tokens_per_second(address, [home.model.name, *adapters])
        note(figures | {"gateway": _against_direct(load, address, home)})
        rates = {"0": load.tokens_per_second(address, [home.model.name])}
        for active in ADAPTERS:
            rates[str(active)] = load.tokens_per_second(address, adapters[:active])
            note({"tokens_per_second_by_adapters": rates})
        note({"first_answer": _first_answer(home, address)})
    began = time.monotonic()
    with home.server():
        note({"restart_seconds": time.monotonic() - began})
    return {}


class Load:
    """So many clients at once, each answer of the same length to a question that no cache knows."""

    def __init__(self, clients: int, answers: int, tokens: int):
        self.clients, self.answers, self.tokens = clients, answers, tokens
        self._number = count()

    def tokens_per_second(self, address: Any, served: list[str]) -> float:
        """Raises: LoadError if any answer fails."""
        from gateway_bench import load
        from gateway_bench.request import QUESTION, chat_request

        asked = [
            chat_request(
                served[turn % len(served)], "none", stream=True, max_tokens=self.tokens, temperature=0,
                ignore_eos=True, messages=[{"role": "user", "content": f"({next(self._number)}) {QUESTION}"}],
            )
            for turn in range(self.answers)
        ]  # fmt: skip
        seen = load.once(address, iter(asked), self.clients)
        if seen.errors:
            raise load.LoadError(f"{seen.errors} errors, the first: {seen.first_error}")
        return self.answers * self.tokens / seen.seconds


def _against_direct(load: Load, address: Any, home: ServedHome) -> Figures:
    """In turns; the ratio is the median of the rounds' own."""
    found: dict[str, list[float]] = {"direct": [], "ours": []}
    ways = {"direct": home.engine_socket, "ours": address}
    for turn in range(ROUNDS):
        for name in sorted(ways, reverse=bool(turn % 2)):
            found[name].append(load.tokens_per_second(ways[name], [home.model.name]))
    ratios = [ours / direct for ours, direct in zip(found["ours"], found["direct"], strict=True)]
    return {**found, "ratio": statistics.median(ratios)}


def _first_answer(home: ServedHome, address: Any) -> Figures:
    """Of an adapter that is published while the server runs: from then to its first token's arrival."""
    began = time.monotonic()
    name = home.publish_random(MOST_LORAS)
    published = time.monotonic()
    body = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    ask(address, "/v1/chat/completions", body)
    return {"publishing_seconds": published - began, "seconds": time.monotonic() - published}
