"""Which of vLLM's parsers reads a model's tool calls: told by how its chat template writes them."""

import json
from pathlib import Path

TEMPLATE, TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"

# What a template holds, and the parser of calls that are written so. The first that fits counts: templates with
# `<function=` hold `<tool_call>` as well.
MARKS = (
    ("[TOOL_CALLS]", "mistral"),
    ("<|python_tag|>", "llama3_json"),
    ('"parameters": dictionary', "llama3_json"),
    ("<function=", "qwen3_coder"),
    ("<tool_call>", "hermes"),
)
# vLLM refuses tools without a parser, also where it needs none: calls that must be made (`required`, or a named
# function) are decoded as JSON whatever the model. This one touches no answer without `<tool_call>`.
OF_OTHERS = "hermes"


def tool_parser_of(model: Path, template: Path | None) -> str:
    """`template`: the one given in place of the model's own."""
    text = _own_template(model) if template is None else template.read_text()
    return next((parser for mark, parser in MARKS if mark in text), OF_OTHERS)


def _own_template(model: Path) -> str:
    """As the tokenizer finds it; some models have several, of which one is for tools."""
    path = model / TEMPLATE
    if path.is_file():
        return path.read_text()
    path = model / TOKENIZER_CONFIG
    found = json.loads(path.read_text()).get("chat_template") if path.is_file() else None
    if isinstance(found, list):
        return "".join(one["template"] for one in found)
    return found or ""
