"""local-llm chats: answers that were kept, read and rated by a person; `train dataset chats` learns from them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from local_llm.audit import Audit
from local_llm.cli.context import AsJson, CommandContext
from local_llm.cli.output import emit, emit_table
from local_llm.errors import InvalidInputError
from local_llm.prompts import text_of

app = typer.Typer(no_args_is_help=True, help="Chats that were kept (store=true): read and rate their answers.")

SHOWN = 60

Verdict = Literal["good", "bad"]


@app.command("list")
def list_kept(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="Only chats with this model or profile.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    after: Annotated[str | None, typer.Option(help="Go on behind this chat.")] = None,
    as_json: AsJson = False,
) -> None:
    """Lists kept chats, the newest first."""
    from serving.chats.rows import Filter, list_chats

    box: CommandContext = context.obj
    rows, _ = list_chats(box.state, box.caller, Filter(model), after=after, limit=limit, order="desc")
    columns = ["id", "asked_at", "model", "rating", "question", "answer"]
    emit_table([_described(row) for row in rows], columns, as_json=as_json, empty="no kept chats")


@app.command("show")
def show(context: typer.Context, chat_id: str, as_json: AsJson = False) -> None:
    """Prints a chat: what was said, the answer, and what a reviewer said of it."""
    from serving.chats.rows import as_json as told
    from serving.chats.rows import get_chat, messages_of

    box: CommandContext = context.obj
    row = get_chat(box.state, chat_id, box.caller)
    said = [f"{message['role']}: {text_of(message.get('content'))}" for message in messages_of(row)]
    said += [f"assistant: {choice['message'].get('content')}" for choice in row.answer["choices"]]
    said += [f"{name}: {value}" for name, value in _review_of(row).items() if value]
    emit({**told(row), "messages": messages_of(row)}, "\n".join(said), as_json=as_json)


@app.command("rate")
def rate(
    context: typer.Context,
    chat_id: str,
    verdict: Annotated[Verdict, typer.Argument(help="Whether the answer is one to learn from.")],
    correction: Annotated[str | None, typer.Option(help="What should have been answered.")] = None,
    correction_file: Annotated[Path | None, typer.Option(help="The same, from a file.")] = None,
    note: Annotated[str | None, typer.Option(help="For other reviewers.")] = None,
    as_json: AsJson = False,
) -> None:
    """Says what a reviewer thinks of an answer. The last word holds."""
    from serving.chats.rows import Review, rate_chat

    box: CommandContext = context.obj
    if correction is not None and correction_file is not None:
        raise InvalidInputError("--correction and --correction-file: give one of them")
    if correction_file is not None:
        correction = correction_file.read_text(encoding="utf-8").strip()
    if correction is not None and not correction.strip():
        raise InvalidInputError("the correction is empty", hint="leave it out, or say what was to be answered")
    row = rate_chat(box.state, chat_id, box.caller, Review(verdict, correction, note))
    _note(box, "chat.rated", chat_id, rating=verdict)
    emit(_described(row), f"{chat_id}: {verdict}", as_json=as_json)


@app.command("delete")
def delete(context: typer.Context, chat_id: str, as_json: AsJson = False) -> None:
    """Deletes a kept chat."""
    from serving.chats.rows import delete_chat

    box: CommandContext = context.obj
    delete_chat(box.state, chat_id, box.caller)
    _note(box, "chat.deleted", chat_id)
    emit({"deleted": chat_id}, f"deleted {chat_id}", as_json=as_json)


def _described(row: Any) -> dict[str, Any]:
    from serving.chats.rows import messages_of

    asked = [text_of(message.get("content")) for message in messages_of(row) if message["role"] == "user"]
    answers = [choice["message"].get("content") or "" for choice in row.answer["choices"]]
    return {
        "id": row.id,
        "asked_at": datetime.fromtimestamp(row.created_at, UTC).strftime("%Y-%m-%d %H:%M"),
        "model": row.model,
        "question": _cut(asked[-1] if asked else ""),
        "answer": _cut(answers[0] if answers else ""),
        **_review_of(row),
    }


def _review_of(row: Any) -> dict[str, Any]:
    return {"rating": row.rating, "correction": row.correction, "reviewer_note": row.reviewer_note}


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def _note(box: CommandContext, action: str, chat_id: str, **detail: Any) -> None:
    audit = Audit(box.state)
    audit.note(box.caller, action, chat_id, detail)
    audit.flush()
