"""local-llm serve, ask, doctor: the server, a question to it, and whether this box is fit for either."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit, emit_table
from local_llm.errors import InvalidInputError, LocalLLMError, UnavailableError
from local_llm.fileio import read_json
from local_llm.settings import Settings

if TYPE_CHECKING:
    from openai import OpenAI


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Starts the server in the foreground, as `python -m serving` does."""
    import sys

    line = [sys.executable, "-m", "serving"]
    box: CommandContext = context.obj
    for option, value in (("--host", host), ("--port", port), ("--settings", box.settings_file)):
        if value is not None:
            line += [option, str(value)]
    os.execv(sys.executable, line)


def ask(
    context: typer.Context,
    question: Annotated[str, typer.Argument(help="What to ask.")],
    model: Annotated[str, typer.Option(help="A profile, an `ft:` name, or the base.")] = "base",
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 300,
    as_json: AsJson = False,
) -> None:
    """Asks the running server one question and prints the answer with its citations."""
    client = server_client(context.obj.settings)
    with told_by_server():
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=max_tokens,
            temperature=0,
        )
    message = answer.choices[0].message.model_dump()
    citations = message.get("citations") or []
    result = {"model": answer.model, "answer": message["content"], "citations": citations}
    emit(result, "\n".join([message["content"], *(_cite(citation) for citation in citations)]), as_json=as_json)


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Says what this box is, what is on it, and whether a server runs."""
    from local_llm.hardware import available_memory_gib, this_hardware
    from local_llm.models import ModelStore

    settings: Settings = context.obj.settings
    names = [model.name for model in ModelStore(settings.place.models).list()]
    wanted = (settings.engine.model, settings.index.encoder)
    missing = [name for name in wanted if name not in names]
    rows = [
        {"check": "hardware", "result": str(this_hardware())},
        {"check": "memory available", "result": f"{available_memory_gib():.1f} GiB"},
        {"check": "home", "result": str(settings.home)},
        {"check": "models", "result": ", ".join(names) or "none"},
        {"check": "missing models", "result": ", ".join(missing) or "none"},
        {"check": "server", "result": _server_status(settings)},
    ]
    emit_table(rows, ["check", "result"], as_json=as_json, empty="")


def server_client(settings: Settings) -> "OpenAI":
    """A client of the running server, with the key of the environment."""
    import openai

    return openai.OpenAI(
        base_url=server_url(settings) + "/v1",
        api_key=os.environ.get("OPENAI_API_KEY") or "none",
        # No proxy of the environment: the question goes to our server only.
        http_client=openai.DefaultHttpxClient(trust_env=False, verify=server_trust(settings)),
    )


@contextmanager
def told_by_server() -> Iterator[None]:
    """For the block, what goes wrong with the server is told in our words.

    Raises: UnavailableError, LocalLLMError.
    """
    import openai

    try:
        yield
    except openai.APIConnectionError:
        raise UnavailableError("no server answers here", hint="python -m serving") from None
    except openai.APIStatusError as error:
        raise LocalLLMError(str(error.message)) from None


def server_url(settings: Settings) -> str:
    """Where the running server listens: it wrote that down, as its port may have been chosen for it."""
    record = settings.place.run / "server.json"
    if record.exists():
        return str(read_json(record)["url"])
    scheme = "https" if settings.server.tls_certificate else "http"
    return f"{scheme}://{settings.server.host}:{settings.server.port}"


def server_trust(settings: Settings) -> ssl.SSLContext | bool:
    """Whom to believe to be that server: whoever has the certificate that the settings name. What name it is made
    out to does not matter: the address is ours."""
    certificate = settings.server.tls_certificate
    if certificate is None:
        return True
    try:
        context = ssl.create_default_context(cafile=certificate)
    except OSError as error:
        raise InvalidInputError(f"server.tls_certificate = {certificate} cannot be used: {error}") from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not sign itself
    context.check_hostname = False
    return context


def _server_status(settings: Settings) -> str:
    import httpx

    url = server_url(settings)
    try:
        answer = httpx.get(f"{url}/ready", timeout=5, trust_env=False, verify=server_trust(settings))
        return f"{answer.json()['status']} at {url}"
    except (httpx.HTTPError, ValueError, KeyError):
        return "not running (python -m serving)"


def _cite(citation: dict[str, Any]) -> str:
    page = f", page {citation['page']}" if citation.get("page") else ""
    span = f"characters {citation['start']}-{citation['end']}"
    return f"  [{citation['index']}] {citation['document']}{page}, {span}: {citation['quote']!r}"
