"""What a collection and its requests need at sizes that nobody has here: from measured figures and your own.

    python scripts/sizing.py
    python scripts/sizing.py --passages 1e8 --dimension 768 --requests 1000
    python scripts/sizing.py --prefill-tokens-per-second 20000 --decode-tokens-per-second 2000

Prints what goes in, a table for each dimension and one of requests, as Markdown; `--json` prints these rows for
machines. A figure is `measured` (with where), `computed` (with its formula) or `input`: yours or a data sheet's.
Engine GPUs are told only with your engine's rates, which `local-llm cost measure` measures on your own machine.
Formulas: local_llm/sizing/. Measured: docs/figures/growth.json, by scripts/bench_growth.py.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(1, str(ROOT))

from local_llm.costs.local import Traffic  # noqa: E402
from local_llm.costs.throughput import throughput_of  # noqa: E402
from local_llm.errors import InvalidInputError, LocalLLMError  # noqa: E402
from local_llm.sizing import measured  # noqa: E402
from local_llm.sizing.measured import Given, Growth, growth_of  # noqa: E402
from local_llm.sizing.passage_table import Machines, passage_rows  # noqa: E402
from local_llm.sizing.request_table import Load, request_rows  # noqa: E402
from local_llm.sizing.rows import Row  # noqa: E402

H200 = "NVIDIA's data sheet of the H200"
SUPPOSED = "supposed: give your own"
# What an option stands for where it is not given, and who says so.
SOURCES = {
    "gpu_memory_gb": H200,
    "gpu_bandwidth_gb_per_second": H200,
    "gpu_share": "index/vectors/device_rows.py: the rest is for the engine",
}


def main() -> None:
    options = arguments()
    try:
        measured_here = read(options.growth)
        growths = [growth_of(measured_here, one) for one in options.dimension]
        result = report(options, growths)
    except LocalLLMError as error:
        sys.exit(f"{error}\n{error.hint or ''}")
    if options.json:
        print(json.dumps(result))
    else:
        print_markdown(options, result)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=float, nargs="+", default=[1e7, 1e8, 1e9])
    parser.add_argument("--dimension", type=int, nargs="+", default=[384, 768, 1024])
    parser.add_argument("--requests", type=float, nargs="+", default=[10, 100, 1000, 10_000], help="a second")
    parser.add_argument("--gpu-memory-gb", type=float, default=141)
    parser.add_argument("--gpu-bandwidth-gb-per-second", type=float, default=4800)
    parser.add_argument("--gpu-share", type=float, default=0.5, help="of a GPU's memory, for vectors")
    parser.add_argument("--host-memory-gb", type=float, default=512)
    parser.add_argument("--host-share", type=float, default=0.8, help="of a host's memory, for vectors")
    parser.add_argument("--scan-ms", type=float, default=50, help="that one exact search on GPUs may take")
    parser.add_argument("--worker-passages-per-second", type=float, help="of one worker of bulk encoding")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--input-tokens", type=float, default=2000, help="of a prompt, with its passages")
    parser.add_argument("--output-tokens", type=float, default=300)
    parser.add_argument("--prefill-tokens-per-second", type=float, help="of one engine that does nothing else")
    parser.add_argument("--decode-tokens-per-second", type=float, help="of one engine that does nothing else")
    parser.add_argument("--gpus-an-engine", type=int, default=1)
    parser.add_argument("--utilisation", type=float, default=0.5, help="of processes, cores and engines")
    parser.add_argument("--pairs", type=float, default=100, help="keys x models that are in use at once")
    parser.add_argument("--kept-share", type=float, default=0, help="of requests: responses that are kept")
    parser.add_argument("--growth", type=Path, default=ROOT / "docs" / "figures" / "growth.json")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def read(path: Path) -> dict[str, Any]:
    """Raises: InvalidInputError for a file that is not there, or not what bench_growth wrote."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error}", hint=f"scripts/bench_growth.py --work FOLDER --out {path}"
        ) from error
    if not isinstance(result, dict) or "sizes" not in result:
        raise InvalidInputError(f"{path} holds no sizes; expected what scripts/bench_growth.py --out writes")
    return result


def report(options: argparse.Namespace, growths: list[Growth]) -> dict[str, Any]:
    collections = [(count, growths[0]) for count in options.passages]
    return {
        "inputs": {name: asdict(given) for name, given in inputs(options, growths).items()},
        "passages": {
            str(growth.dimension): [
                asdict(row) for row in passage_rows(options.passages, growth, machines(options))
            ]
            for growth in growths
        },
        "requests": [asdict(row) for row in request_rows(options.requests, load(options), collections)],
    }


def inputs(options: argparse.Namespace, growths: list[Growth]) -> dict[str, Given]:
    """What goes in, of bench_growth how far it was measured."""
    given = {
        "--" + name.replace("_", "-"): Given(value, "input", SOURCES.get(name, SUPPOSED))
        for name, value in vars(options).items()
        if isinstance(value, float | int) and not isinstance(value, bool)
    }
    laws = {
        f"laws of growth, d = {growth.dimension}": Given(growth.largest, "measured", growth.source)
        for growth in growths
    }
    return (
        given
        | laws
        | {
            "passages/s, encoded on a core": measured.PASSAGES_PER_SECOND,
            "questions/s, encoded on a core": measured.QUESTIONS_PER_SECOND,
            "gateway, seconds a request": measured.GATEWAY_SECONDS,
            "gateway, seconds a chunk": measured.CHUNK_SECONDS,
            "gateway, seconds of context": measured.CONTEXT_SECONDS,
        }
    )


def machines(options: argparse.Namespace) -> Machines:
    return Machines(
        gpu_bytes=options.gpu_memory_gb * 1e9,
        gpu_bytes_per_second=options.gpu_bandwidth_gb_per_second * 1e9,
        gpu_share=options.gpu_share,
        host_bytes=options.host_memory_gb * 1e9,
        host_share=options.host_share,
        scan_seconds=options.scan_ms / 1e3,
        worker_passages_per_second=options.worker_passages_per_second,
        workers=options.workers,
    )


def load(options: argparse.Namespace) -> Load:
    rates = options.prefill_tokens_per_second, options.decode_tokens_per_second
    throughput = None
    if None not in rates:
        throughput = throughput_of(prefill_tokens_per_second=rates[0], decode_tokens_per_second=rates[1])
    return Load(
        traffic=Traffic(options.input_tokens, options.output_tokens),
        throughput=throughput,
        utilisation=options.utilisation,
        gpus_an_engine=options.gpus_an_engine,
        pairs=options.pairs,
        kept_share=options.kept_share,
    )


def print_markdown(options: argparse.Namespace, result: dict[str, Any]) -> None:
    print("| goes in | figure | | from |\n|---|---|---|---|")
    for name, given in result["inputs"].items():
        print(f"| {name} | {given['value']:,.10g} | {given['standing']} | {given['source']} |")
    for dimension, rows in result["passages"].items():
        print_table(f"n passages, d = {dimension}", [f"{count:,.0f}" for count in options.passages], rows)
    print_table("requests a second", [f"{rate:,.0f}" for rate in options.requests], result["requests"])


def print_table(what: str, columns: list[str], rows: list[dict[str, Any]]) -> None:
    head = [what, *columns, "", "formula"]
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in (Row(**one) for one in rows):
        cells = [cell(value, row.unit) for value in row.values]
        print(f"| {row.what} | {' | '.join(cells)} | {row.standing} | {row.how} |")


def cell(value: float | None, unit: str) -> str:
    if value is None:
        return "not known"
    if unit == "bytes":
        return scaled(value, ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")))
    if unit == "ms":
        return scaled(value, ((60e3, "min"), (1e3, "s"), (1, "ms")))
    if unit == "seconds":
        return scaled(value, ((3600, "h"), (60, "min"), (1, "s")))
    if unit == "hours":
        return scaled(value, ((24 * 365, "years"), (24, "days"), (1, "h"), (1 / 60, "min")))
    return f"{value:,.0f}"


def scaled(value: float, units: tuple[tuple[float, str], ...]) -> str:
    """To three digits, in the largest unit that it has one of; else in the smallest."""
    size, name = next((one for one in units if value >= one[0]), units[-1])
    share = value / size
    return f"{share:,.0f} {name}" if share >= 100 else f"{share:.3g} {name}"


if __name__ == "__main__":
    main()
