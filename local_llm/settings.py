"""All settings: a TOML file, environment variables over it, command-line options over both.

The file is named by --settings or LOCAL_LLM_SETTINGS, else it is settings.toml in the home folder, if there.
A variable is named after the path of its setting: LOCAL_LLM_ENGINE__MODEL sets `model` in `[engine]`;
an empty one counts as not given.
Unknown names are refused and everything wrong is reported at once.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from local_llm.engine_settings import EngineSettings
from local_llm.errors import SettingsError
from local_llm.home import Home
from local_llm.index_settings import IndexSettings
from local_llm.prompts import LONGEST_REFUSAL, REFUSAL
from local_llm.section import Section
from local_llm.state_settings import StateSettings

PREFIX = "LOCAL_LLM_"
# Variables of the same prefix that are read elsewhere: by the installer, and here, before any setting.
NOT_SETTINGS = {"LOCAL_LLM_HOME", "LOCAL_LLM_SETTINGS", "LOCAL_LLM_EXTRA", "LOCAL_LLM_VENV"}

# What may hold a password by mistake: not shown in an error.
NEVER_SHOWN = {"state", "state.url"}

HOSTED_SMALL_MODELS = (
    "gpt-4o-mini",
    "gpt-4o-mini-2024-07-18",
    "gpt-4.1-mini",
    "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano",
    "gpt-3.5-turbo",
)

# At least something, and no line's end.
ONE_LINE = r"^[^\r\n]*\S[^\r\n]*$"

# How the base model's weights are held while an adapter is trained on them.
Quantization = Literal["none", "4bit"]

# How training and the engine share the GPU.
Sharing = Literal["split", "stop", "separate"]
Sharding = Literal["auto", "full", "none"]

# What is done with examples that are longer than training.max_tokens.
OverLong = Literal["refuse", "cut"]

# Who reads /metrics without a key.
MetricsReaders = Literal["nobody", "loopback", "anybody"]

Port = Annotated[int, Field(ge=0, le=65535)]


class ServerSettings(Section):
    """[server]: the address clients talk to."""

    host: str = Field("127.0.0.1", description="Address to listen on. Anything but loopback needs a key.")
    port: Port = Field(8000, description="Port to listen on; 0 lets the system choose one.")
    first_key_file: Path | None = Field(
        None, description="File holding an API key; becomes the first key, an owner's, when there is none yet."
    )
    max_upload_bytes: int = Field(512 * 1024**2, gt=0, description="Largest file accepted by /v1/files.")
    project_quota_bytes: int = Field(
        100 * 1024**3,
        gt=0,
        description="Space for the files of one project, answers of batches too; equal files count once.",
    )
    audit_days: int = Field(365, ge=0, description="How long entries of the audit log are kept; 0: for ever.")
    usage_days: int = Field(
        730, ge=0, description="How long what keys used is kept, minute by minute; 0: for ever."
    )
    response_days: int = Field(
        30, ge=0, description="How long stored responses are kept after their last use; 0: for ever."
    )
    project_response_bytes: int = Field(
        1024**3, gt=0, description="Space for the stored responses of one project; beyond, none is stored."
    )
    chat_days: int = Field(
        365, ge=0, description="How long kept chats stay after they were asked or last rated; 0: for ever."
    )
    project_chat_bytes: int = Field(
        1024**3, gt=0, description="Space for the kept chats of one project; beyond, chats are answered, not kept."
    )
    max_body_bytes: int = Field(16 * 1024**2, gt=0, description="Largest body of any other request.")
    request_timeout_seconds: float = Field(600, gt=0, description="Longest time one answer may take.")
    body_timeout_seconds: float = Field(
        60, gt=0, description="Longest time a client may take to send its question."
    )
    max_running_requests: int = Field(
        256, gt=0, description="Questions that the engine is asked at once; more wait, fairly between keys."
    )
    max_waiting_requests: int = Field(
        1024, ge=0, description="Questions that may wait; more are refused with 429 and when to come back."
    )
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Gateway processes; limits on questions, connections and keys are divided between them.",
    )
    max_connections: int = Field(4096, gt=0, description="Open connections; more are told 503 and closed.")
    header_timeout_seconds: float = Field(
        10, gt=0, description="Longest time a client may take to send the head of a request."
    )
    max_header_bytes: int = Field(
        32 * 1024, ge=1024, description="Largest head of a request: its line and headers."
    )
    max_headers: int = Field(100, ge=16, description="Most headers of a request.")
    keep_alive_seconds: int = Field(75, gt=0, description="How long a connection without a request is kept open.")
    drain_seconds: int = Field(
        30, gt=0, description="When told to stop: longest time that running answers have to come to their end."
    )
    drain_notice_seconds: float = Field(
        0,
        ge=0,
        description="Before that, how long /ready says `draining` while all is served: for a load balancer to see.",
    )
    tls_certificate: Path | None = Field(
        None, description="Certificate with its chain (PEM). With it and `tls_key` the server speaks HTTPS only."
    )
    tls_key: Path | None = Field(None, description="Private key of the certificate (PEM, without a passphrase).")
    tls_client_ca: Path | None = Field(
        None, description="Certificates (PEM) that clients' own certificates must come from: mutual TLS."
    )


class TrainingSettings(Section):
    """[training]: the defaults of a run; each can be given with the run itself."""

    rank: int = Field(16, gt=0, description="LoRA rank.")
    alpha: int = Field(32, gt=0, description="LoRA alpha; the update is scaled by alpha / rank.")
    quantization: Quantization = Field(
        "none",
        description="`4bit` (QLoRA) trains in less memory, slower, on weights that are served unquantized.",
    )
    learning_rate: float = Field(
        2e-4, gt=0, description="Base learning rate, which `learning_rate_multiplier` multiplies."
    )
    dpo_learning_rate: float = Field(
        5e-6, gt=0, description="The same for preference training (method `dpo`), which needs a far smaller one."
    )
    rslora: bool = Field(False, description="Scale the update by alpha / √rank (rsLoRA): for ranks of 64 and more.")
    early_stopping_epochs: int = Field(
        0,
        ge=0,
        description=(
            "End after so many epochs without a better validation loss and keep the best; 0: never. For jobs with "
            "a validation file."
        ),
    )
    max_tokens: int = Field(2048, gt=0, description="Longest training example, in tokens.")
    over_long: OverLong = Field(
        "refuse", description="Longer examples: `refuse` the file and name them, or `cut` their end off and say so."
    )
    micro_batch_tokens: int = Field(
        2048,
        gt=0,
        description="Padded tokens that pass through the model at once: speed and memory, not the result.",
    )
    checkpoint_seconds: float = Field(
        60, ge=0, description="How much training a crash may cost: a checkpoint is written so often; 0: every step."
    )
    processes: int = Field(
        1, ge=1, description="GPUs that train together, through `accelerate launch`: one process each."
    )
    sharding: Sharding = Field(
        "auto",
        description=(
            "With several processes: `full` shards the base over them (FSDP2, training/fsdp.yaml), `none` gives "
            "each a copy (DDP, training/ddp.yaml), faster where it fits; `auto`: `full` on GPUs."
        ),
    )
    poll_seconds: float = Field(1.0, gt=0, description="How often the trainer looks for a queued job.")


class GPUSettings(Section):
    """[gpu]: one GPU for serving and training, or two. Without a GPU only `sharing = "stop"` has a meaning."""

    sharing: Sharing = Field(
        "split",
        description=(
            "`split`: train beside the engine, each in its share of memory; `stop`: stop the engine while a job "
            "trains; `separate`: train on other devices."
        ),
    )
    training_memory_share: float = Field(
        0.35, gt=0, lt=1, description="With `split`: training's share, taken from engine.gpu_memory_share."
    )
    encoder_memory_gib: float = Field(
        2.0,
        ge=0,
        description=(
            "Memory left to the index server where it computes on the engine's GPU (index.device): the encoder and "
            "its batches, and vectors held there."
        ),
    )
    engine_devices: str = Field("", description="With `separate`: CUDA_VISIBLE_DEVICES of the engine.")
    training_devices: str = Field("", description="With `separate`: CUDA_VISIBLE_DEVICES of training.")


class LogSettings(Section):
    """[logs]: the logs of the processes, in the folder `logs`."""

    max_bytes: int = Field(
        32 * 1024**2,
        ge=64 * 1024,
        description="A log that grows beyond is moved to NAME.log.1, and that to NAME.log.2.",
    )
    keep: int = Field(5, ge=1, description="So many of those are kept for each process.")


class TelemetrySettings(Section):
    """[telemetry]: what is seen from outside. Nothing here holds what was asked or answered."""

    metrics: MetricsReaders = Field(
        "loopback",
        description=(
            "Who may read /metrics without a key: `nobody`, processes on this machine (`loopback`), or `anybody`. "
            "An owner's key always may."
        ),
    )
    request_log: bool = Field(False, description="One line of JSON a request, in the gateway's log.")
    traces_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="Where OpenTelemetry traces go (OTLP over HTTP, as http://host:4318/v1/traces). Empty: none.",
    )
    traces_share: float = Field(1.0, ge=0, le=1, description="Share of the requests that are traced.")


class AnsweringSettings(Section):
    """[answering]: answers from documents."""

    rewrite: bool = Field(
        True,
        description=(
            "Make follow-up questions self-contained before they are searched for: one short generation for each "
            "question that is not the first of its chat. A profile can say otherwise."
        ),
    )
    rewrite_timeout_seconds: float = Field(
        5, gt=0, description="Longest time that may take; the question is then searched for as it is."
    )
    refusal: str = Field(
        REFUSAL,
        pattern=ONE_LINE,
        max_length=LONGEST_REFUSAL,
        description=(
            "What is answered where the documents hold no answer, in your users' language: the model is told to "
            "say it, and it is said without a model where nothing is found. A profile can have other words."
        ),
    )
    reserve_tokens: int = Field(
        512,
        gt=0,
        description=(
            "Tokens kept free for an answer whose request names no `max_tokens`, when passages are cut to fit; "
            "never more than half of engine.max_model_tokens."
        ),
    )


class ProfileSettings(Section):
    """[profiles.NAME]: profiles that are there from the start, as `local-llm profiles set` makes them."""

    strategy: Literal["base", "fine_tuned", "rag", "hybrid"] = Field(description="What stands behind the name.")
    model: str = Field("base", description="`base`, or an `ft:` name for fine_tuned and hybrid.")
    collection: str | None = Field(None, description="Name or id of the collection, for rag and hybrid.")
    prompt: str | None = Field(None, description="Words said before the context, or as system message.")
    k: int = Field(5, description="How many passages to retrieve.")
    answer_only_from_context: bool = Field(
        True, description="Have the model say that it does not know where the passages hold no answer."
    )
    rewrite: bool | None = Field(None, description="As answering.rewrite, for this profile.")
    refusal: str | None = Field(None, description="As answering.refusal, for this profile.")
    project: str = Field("local", description="Name of the project that it belongs to.")


class CostSettings(Section):
    """[cost]: what this hardware costs."""

    machine_usd_per_hour: float = Field(
        0.10, ge=0, description="Price of an hour of this machine. The default stands for two rented cores."
    )
    hosted_training_usd_per_million_tokens: float | None = Field(
        None, ge=0, description="What the hosted API takes for training tokens; sources disagree: none is assumed."
    )
    prices_file: Path | None = Field(
        None,
        description=(
            "Prices of your own (JSON), whose rows go before the shipped ones. Default: prices.json in the home "
            "folder, if there."
        ),
    )


class Settings(Section):
    """The top level of the file: what belongs to no section, and the sections."""

    home: Path = Field(description="Folder that holds everything. Default: LOCAL_LLM_HOME, else ~/.local-llm.")
    organization: str = Field(
        "local", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Second part of `ft:` model names."
    )
    aliases: dict[str, str] = Field(
        default_factory=lambda: dict.fromkeys(HOSTED_SMALL_MODELS, "base"),
        description="Hosted model names that stand for a local one; `base` is the default base model.",
    )
    embedding_aliases: dict[str, str] = Field(
        default_factory=dict,
        description="Hosted names of embedding models that stand for an encoder here, whose vectors are others.",
    )
    state: StateSettings = StateSettings()  # type: ignore[call-arg]
    server: ServerSettings = ServerSettings()  # type: ignore[call-arg]
    engine: EngineSettings = EngineSettings()  # type: ignore[call-arg]
    index: IndexSettings = IndexSettings()  # type: ignore[call-arg]
    training: TrainingSettings = TrainingSettings()  # type: ignore[call-arg]
    gpu: GPUSettings = GPUSettings()  # type: ignore[call-arg]
    logs: LogSettings = LogSettings()  # type: ignore[call-arg]
    telemetry: TelemetrySettings = TelemetrySettings()  # type: ignore[call-arg]
    cost: CostSettings = CostSettings()  # type: ignore[call-arg]
    answering: AnsweringSettings = AnsweringSettings()  # type: ignore[call-arg]
    profiles: dict[str, ProfileSettings] = Field(
        default_factory=dict, description="Profiles by name, each a table of its own: see `[profiles.NAME]`."
    )

    @field_validator("home")
    @classmethod
    def _whole_path(cls, home: Path) -> Path:
        """The same folder from wherever a process is started."""
        return home.expanduser().absolute()

    @property
    def place(self) -> Home:
        return Home(self.home, self.state)


def load_settings(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Reads the settings.

    `overrides` maps dotted names ("server.port") to values; None means "not given".

    Raises: SettingsError listing everything that is wrong, with where it came from.
    """
    variables = os.environ if environment is None else environment
    home = Path(variables.get("LOCAL_LLM_HOME") or Path.home() / ".local-llm").expanduser()
    named = file or (Path(variables["LOCAL_LLM_SETTINGS"]) if variables.get("LOCAL_LLM_SETTINGS") else None)
    values = _read_file(named or Home(home).settings_file, must_exist=named is not None)
    for path, text in _from_environment(variables):
        _put(values, path, text)
    for name, value in (overrides or {}).items():
        if value is not None:
            _put(values, name.split("."), value)
    values.setdefault("home", home)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        reasons = "; ".join(_explain(detail) for detail in error.errors())
        raise SettingsError(f"settings: {reasons}", hint="see docs/settings.md for every setting") from None


def _read_file(path: Path, *, must_exist: bool) -> dict[str, Any]:
    if not path.exists():
        if must_exist:
            raise SettingsError(f"the settings file {path} does not exist", hint="check --settings")
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} is not TOML: {error}") from None


def _from_environment(variables: Mapping[str, str]) -> list[tuple[list[str], Any]]:
    found = []
    for variable, text in sorted(variables.items()):
        if variable.startswith(PREFIX) and variable not in NOT_SETTINGS and text:
            found.append((variable.removeprefix(PREFIX).lower().split("__"), _parse_value(text)))
    return found


def _parse_value(text: str) -> Any:
    """Lists and tables are written as in TOML; anything else is left to the setting's own type."""
    if text[:1] in "[{":
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
    return text


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"settings: {'.'.join(path)}: {name} is not a table")
        values = inner
    values[path[-1]] = value


def _explain(detail: ErrorDetails) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    message = detail["msg"].removeprefix("Value error, ")
    shown = name if name in NEVER_SHOWN else f"{name} = {detail['input']!r}"
    return f"{shown}: {message[:1].lower()}{message[1:]}"
