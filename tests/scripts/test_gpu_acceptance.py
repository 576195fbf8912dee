"""The acceptance of a GPU box: its arithmetic by hand, its children, its minutes, and all of it in small."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..conftest import REPOSITORY

SCRIPT = REPOSITORY / "scripts" / "gpu_acceptance.py"
sys.path.insert(0, str(SCRIPT.parent))

from acceptance import flops, lines, models, texts  # noqa: E402
from acceptance.bench import Bench  # noqa: E402
from acceptance.children import Outcome, Target, run_alone  # noqa: E402
from acceptance.lines import Line  # noqa: E402
from acceptance.parts import MACHINE, Part, Run, parts  # noqa: E402
from acceptance.served_home import ServedHome  # noqa: E402
from acceptance.session import NO_GPU, NO_TIME, PartResult, Session  # noqa: E402

from index.encoders import Encoders  # noqa: E402
from local_llm.adapters import AdapterRegistry  # noqa: E402

RUNS = "tests.scripts.acceptance_runs"

# The physics


def test_training_counts_four_operations_a_weight_and_attention() -> None:
    """1,000 weights, 2 layers of width 8. Rows of 10 and 4 tokens: 4 x 1,000 x 14 = 56,000; attention forward and
    back 6 x 2 x 8 x (100 + 16) = 11,136."""
    assert flops.lora_training(flops.Decoder(1000, 2, 8), [10, 4]) == 56_000 + 11_136


def test_encoding_counts_two_operations_a_weight_and_attention() -> None:
    """500 weights in 3 layers of width 4. Texts of 5 and 2 tokens: 2 x 500 x 7 = 7,000; attention
    4 x 3 x 4 x (25 + 4) = 1,392."""
    assert flops.encoding(flops.Encoder(500, 3, 4), [5, 2]) == 7_000 + 1_392


def test_exact_search_reads_each_row_once() -> None:
    assert flops.exact_search_bytes(10_000_000, 768) == 15_360_000_000


def test_the_shapes_have_the_sizes_of_the_models_they_are_named_for() -> None:
    """Llama-3-8B: a layer has 2 x 4,096² + 2 x 4,096 x 1,024 + 3 x 4,096 x 14,336 + 2 x 4,096 = 218,112,000
    weights; 32 of them, a last norm of 4,096, and two tables of 128,256 x 4,096. bge-base: 12 layers of
    4 x 768² + 2 x 768 x 3,072.
    """
    assert models.decoder_sizes("llama-3-8b") == flops.Decoder(8_030_261_248, 32, 4096)
    assert models.encoder_sizes("bge-base") == flops.Encoder(84_934_656, 12, 768)
    assert models.decoder_sizes("llama-3.2-1b").parameters == 1_235_814_400, "its two tables are one"


def test_counted_weights_are_those_of_the_model_that_is_made(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = models.decoder(Bench(tmp_path, small=True), "least")
    made = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert made.num_parameters() == models.decoder_sizes("least").parameters
    assert made.dtype == torch.bfloat16


def test_the_published_figure_is_the_utilisation_that_goes_with_it() -> None:
    """12,473 tokens/s of Llama-3-8B with LoRA on one H100 were published as 40.6 % of 989 TFLOP/s, 4 N a token."""
    peak = flops.peak_of("NVIDIA H100 80GB HBM3")
    assert peak is not None
    without_attention = flops.Decoder(models.decoder_sizes("llama-3-8b").parameters, 0, 0)
    operations = flops.lora_training(without_attention, [12_473])
    assert flops.utilisation(operations, 1.0, peak) == pytest.approx(0.406, abs=0.002)


def test_devices_are_told_apart_by_their_names() -> None:
    assert flops.peak_of("NVIDIA H100 PCIe") == 756e12
    assert flops.peak_of("NVIDIA H200") == 989e12
    assert flops.peak_of("Some other card") is None


# The table


def test_a_line_tells_its_gap_and_how_much_of_its_goal_it_reaches() -> None:
    slow = Line("1M", figure=1.5, unit="ms", floor=1.0, value=1.5, goal=1.25, at_least=False)
    assert (slow.gap, slow.of_goal, slow.reached) == (0.5, pytest.approx(1.25 / 1.5), False)
    assert Line("x", 1.4, "x", value=1.4, goal=1.3).reached
    plain = Line("start", 20.0, "s")
    assert (plain.gap, plain.of_goal, plain.reached) == (None, None, None)


def test_a_searchs_goal_holds_for_few_at_once_only() -> None:
    batches = [{"batch": size, "ms": 1.2, "filtered_ms": 1.3} for size in (1, 256)]
    found = lines.search({"1M": {"floor_ms": 1.0, "batches": batches}})
    assert [line.reached for line in found] == [True, False, None, None]


def test_what_was_told_before_a_run_was_cut_off_is_in_the_table() -> None:
    part = next(part for part in parts(small=False) if part.name == "engine")
    cut = Outcome("out of time", 900.0, {"gateway": {"ratio": 0.99}}, "cut off")
    result = PartResult(part, judged=True, outcomes={"engine": cut})
    assert [(line.what, line.reached) for line in result.lines] == [("gateway over direct", True)]
    assert result.status == "out of time"


def test_a_run_without_all_its_figures_is_left_out_of_the_table() -> None:
    part = next(part for part in parts(small=False) if part.name == "lora")
    whole = {
        "step_seconds": 2.0, "floor_seconds": 1.0, "utilisation": 0.5, "tokens_per_second": 10.0,
        "peak_memory_gib": 1.0,
    }  # fmt: skip
    outcomes = {
        "ours": Outcome("done", 1.0, whole),
        "plain TRL": Outcome("crashed", 1.0, {"shape": "x"}, "SIGKILL"),
    }
    told = PartResult(part, judged=True, outcomes=outcomes).lines
    assert [line.what for line in told] == ["ours: a step, utilisation", "ours: tokens", "ours: peak memory"]
    assert (told[0].reached, told[0].gap) == (True, 1000.0)


# Tokenizers


def test_tokenizers_made_on_the_spot_read_as_many_tokens_as_they_should(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    texts.save_encoder_tokenizer(tmp_path / "encoder", 100, 32)
    encoder = AutoTokenizer.from_pretrained(tmp_path / "encoder", local_files_only=True)
    made = texts.texts_of(12, 5, 100, seed=1)
    assert [len(encoder(text)["input_ids"]) for text in made] == [12] * 5
    assert encoder.unk_token_id not in encoder(made[0])["input_ids"]

    texts.save_chat_tokenizer(tmp_path / "chat", 300)
    chat = AutoTokenizer.from_pretrained(tmp_path / "chat", local_files_only=True)
    ids = chat("Größe 7", add_special_tokens=False)["input_ids"]
    assert chat.decode(ids) == "Größe 7"
    assert len(chat) == 300
    assert all(chat.decode([number]) for number in range(259, 300)), "an id that stands for no text"


# What is served


def test_a_home_takes_the_random_base_and_adapters_as_its_own(tmp_path: Path) -> None:
    """All but the engine: settings that hold, a base that is a model, adapters that belong to it."""
    home = ServedHome(Bench(tmp_path, small=True), "served", "least")
    names = [home.publish_random(number) for number in range(2)]
    state = home.box.state
    try:
        listed = AdapterRegistry(home.settings, state).list(home.box.caller)
        assert {row.name for row in listed} == set(names)
        assert home.settings.engine.model == home.model.name == "least"
        assert home.settings.engine.max_loras == 8
        assert Encoders(home.settings).fingerprint()[0] == "bge-least", "without one no server starts"
    finally:
        state.close()


# Children


@pytest.mark.parametrize(
    ("name", "status", "figures", "reason"),
    [
        ("well", "done", {"figure": 1, "small": False}, ""),
        ("badly", "failed", {}, "ValueError: no such thing"),
        ("without_memory", "out of memory", {"figure": 2}, "Tried to allocate"),
        ("unequal", "wrong", {}, "4 is not 5"),
        ("killed", "crashed", {"figure": 3}, "ended by SIGKILL"),
    ],
)
def test_a_run_is_told_as_it_ended(
    tmp_path: Path, name: str, status: str, figures: dict[str, Any], reason: str
) -> None:
    outcome = run_alone(
        Target(f"{RUNS}:{name}"), Bench(tmp_path, small=False), limit_seconds=120, log=tmp_path / "log"
    )
    assert (outcome.status, outcome.figures) == (status, figures)
    assert reason in outcome.reason


def test_a_run_that_does_not_end_is_cut_off_and_keeps_what_it_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, small=False)
    outcome = run_alone(Target(f"{RUNS}:for_ever"), bench, limit_seconds=20, log=tmp_path / "log")
    assert (outcome.status, outcome.figures) == ("out of time", {"figure": 4})
    assert outcome.seconds < 60


def test_a_package_that_does_not_import_is_a_reason_to_skip(tmp_path: Path) -> None:
    target = Target(f"{RUNS}:well", packages=("tests.scripts.no_such_package",))
    outcome = run_alone(target, Bench(tmp_path, small=False), limit_seconds=120, log=tmp_path / "log")
    assert outcome.status == "skipped"
    assert "does not import" in outcome.reason


# A session


def session(tmp_path: Path, minutes: float | None = None) -> Session:
    return Session(tmp_path / "work", tmp_path / "out.json", small=False, minutes=minutes)


def part_of(*names: str, packages: tuple[str, ...] = ()) -> Part:
    runs = tuple(Run(name, Target(f"{RUNS}:{name}", packages), 120) for name in names)
    return Part("part", "must hold", "something", runs)


def test_each_result_is_on_the_disk_and_a_bad_run_does_not_end_the_others(tmp_path: Path) -> None:
    made = session(tmp_path)
    made._machine = {"copy_bytes_per_second": 1.0}
    made._run_part(part_of("killed", "well"))
    kept = json.loads((tmp_path / "out.json").read_text())
    assert {name: run["status"] for name, run in kept["parts"]["part"]["runs"].items()} == {
        "killed": "crashed", "well": "done",
    }  # fmt: skip
    assert made.results[0].status == "crashed"


def test_what_the_minutes_do_not_suffice_for_is_told_as_not_run(tmp_path: Path) -> None:
    made = session(tmp_path, minutes=0.1)
    result = made.run([part_of("well")])
    assert [(one.part.name, one.status, one.reason) for one in result] == [
        ("machine", "not run", f"machine: {NO_TIME}"),
        ("part", "not run", f"well: {NO_TIME}"),
    ]


def test_a_part_is_skipped_for_what_is_not_there(tmp_path: Path) -> None:
    made = session(tmp_path)
    absent = part_of("well", packages=("no_such_package",))
    assert made.hindrance(absent, absent.runs[0]) == "not installed: no_such_package"
    there = part_of("well")
    assert made.hindrance(there, there.runs[0]) == NO_GPU
    assert made.hindrance(MACHINE, MACHINE.runs[0]) is None


# All of it


def test_parts_are_listed_with_what_they_need() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--list"], capture_output=True, text=True, check=True)
    listed = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert listed == [part.name for part in parts(small=False)]


@pytest.mark.slow
def test_all_parts_that_a_cpu_can_do_run_in_small(tmp_path: Path, figures: dict[str, object]) -> None:
    pytest.importorskip("bitsandbytes")
    line = [sys.executable, SCRIPT, "--small", "--work", tmp_path / "work", "--out", tmp_path / "out.json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == json.loads((tmp_path / "out.json").read_text())
    for part in parts(small=True):
        if part.in_small:
            assert told["parts"][part.name]["status"] == ("held" if part.kind == "must hold" else "measured")
    assert told["machine"]["versions"]["torch"]
    assert told["machine"]["commit"]
    judged = [row["reached"] for part in told["parts"].values() for row in part["lines"]]
    assert judged
    assert set(judged) == {None}, "no goal is judged on a CPU"
    search = told["parts"]["search"]["runs"]["search"]["figures"]
    assert (search["structure"], search["wrong"]) == ("flat16", 0)
    figures["GPU acceptance in small, seconds"] = told["seconds"]
