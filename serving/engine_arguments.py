"""vLLM's command line: what we derive, and the user's own arguments, which win."""

from collections.abc import Iterable, Sequence

from local_llm.errors import SettingsError

# An option and its values.
Option = tuple[str, ...]

# Short names of options that we derive (vllm 0.32, engine/arg_utils.py).
SHORT = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-n": "--nnodes",
    "-r": "--node-rank",
    "-q": "--quantization",
}

# Without these as we give them the gateway would not find the engine, or not be let in.
OURS = {
    "--model": "set engine.model",
    "--served-model-name": "set engine.model",
    "--uds": "the gateway reaches the engine there",
    "--api-key": "nobody but the gateway reaches the engine; for engines elsewhere set engine.api_key_file",
}


def merged(derived: Iterable[Option], given: Sequence[str]) -> list[str]:
    """The derived options that the user did not give, and all that the user gave: nothing twice."""
    theirs = _names(given)
    return [word for option in derived if option[0] not in theirs for word in option] + list(given)


def refuse_ours(given: Sequence[str]) -> None:
    """Raises: SettingsError if the user's arguments hold what only we can know."""
    names = _names(given)
    for name, hint in OURS.items():
        if name in names:
            raise SettingsError(f"engine.arguments: {name} is not for you to set", hint=hint)


def _names(given: Sequence[str]) -> set[str]:
    """The options that are set, as vLLM reads them: `--max_loras=3` is `--max-loras`, and `--no-enable-lora` sets
    `--enable-lora`.
    """
    names = set()
    for word in given:
        name = word.partition("=")[0]
        if name.startswith("--"):
            name = "--" + name[2:].replace("_", "-")
            names |= {name, "--" + name.removeprefix("--no-")} if name.startswith("--no-") else {name}
        elif name in SHORT:
            names.add(SHORT[name])
    return names
