"""GGUF files in: the only door through which quantised weights come, written out as plain safetensors."""

import contextlib
import io
from pathlib import Path

from local_llm.errors import InvalidInputError
from training.quiet import quiet_libraries

MAGIC = b"GGUF"


def write_as_safetensors(file: Path, target: Path) -> None:
    """Reads a chat model from a GGUF file and writes it to the folder `target` as bfloat16, with its tokenizer.

    Raises: InvalidInputError if the file is missing or transformers cannot read it.
    """
    _refuse_other_files(file)
    # transformers draws the bar of its GGUF reader whatever it is told about progress bars.
    with quiet_libraries(), contextlib.redirect_stderr(io.StringIO()):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        try:
            model = AutoModelForCausalLM.from_pretrained(
                str(file.parent),
                gguf_file=file.name,
                dtype=torch.bfloat16,
                # By default the weights stay packed, and a packed model can neither be trained nor saved as plain.
                quantization_config=GgufConfig(dequantize=True),
            )
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
        except Exception as error:  # the reader fails on damaged files with whatever comes first
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InvalidInputError(
                f"{file} cannot be read as a GGUF model: {reason}",
                hint="fetch the file again; its architecture must be one that transformers reads from GGUF",
            ) from None
        # The reader puts the file's inner title where a model's path belongs.
        vars(model.config).pop("_model_name_or_path", None)
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


def _refuse_other_files(file: Path) -> None:
    if not file.is_file():
        raise InvalidInputError(f"{file} does not exist", hint="give the path of a .gguf file")
    with file.open("rb") as handle:
        found = handle.read(len(MAGIC))
    if found != MAGIC:
        raise InvalidInputError(
            f"{file} is not a GGUF file: it starts with {found!r}; expected {MAGIC!r}", hint="fetch the file again"
        )
