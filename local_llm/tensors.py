"""What safetensors files hold, read from their headers alone: no model library, no weights.

Source: the safetensors format: eight bytes with the header's length (little-endian), the header (JSON: of each name
the dtype, shape and place), the bytes.
"""

import json
import math
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from local_llm.errors import InvalidInputError
from local_llm.fileio import read_json

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# The format's own limit.
MAXIMUM_HEADER_BYTES = 100_000_000
DTYPE_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Tensor:
    dtype: str  # as the format names it: BF16, F32, …
    shape: tuple[int, ...]
    start: int  # of its bytes, counted from the end of the header
    end: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Every tensor of one file.

    Raises: InvalidInputError if the file is no whole safetensors file.
    """
    try:
        return _read(file)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error) as error:
        raise InvalidInputError(
            f"{file} is no whole safetensors file: {error}", hint="write or fetch the file again"
        ) from None


def model_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a model's folder, whether in one file or in shards.

    Raises: InvalidInputError if there are none, or a file is damaged.
    """
    found: dict[str, Tensor] = {}
    for file in _model_files(folder):
        found.update(read_tensors(file))
    if not found:
        raise InvalidInputError(
            f"{folder} holds no weights in safetensors files",
            hint="convert them: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)",
        )
    return found


def _model_files(folder: Path) -> list[Path]:
    """What transformers would load: shards by their index, else the one file, else whatever there is."""
    if (folder / WHOLE).exists():
        return [folder / WHOLE]
    if (folder / INDEX).exists():
        return [folder / name for name in sorted(set(read_json(folder / INDEX)["weight_map"].values()))]
    return sorted(folder.glob("*.safetensors"))


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise ValueError("there is no such file")
    size = file.stat().st_size
    with file.open("rb") as handle:
        (length,) = struct.unpack("<Q", handle.read(8))
        if length > min(size - 8, MAXIMUM_HEADER_BYTES):
            raise ValueError(f"it says that its header has {length:,} bytes, but it has {size:,} in all")
        header = json.loads(handle.read(length))
    tensors = {name: _tensor(name, entry) for name, entry in header.items() if name != "__metadata__"}
    _refuse_gaps(tensors, size - 8 - length)
    return tensors


def _tensor(name: str, entry: dict[str, Any]) -> Tensor:
    start, end = entry["data_offsets"]
    tensor = Tensor(entry["dtype"], tuple(int(size) for size in entry["shape"]), start, end)
    width = DTYPE_BYTES.get(tensor.dtype)
    if width is not None and end - start != tensor.elements * width:
        raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)} in {end - start:,} bytes")
    return tensor


def _refuse_gaps(tensors: dict[str, Tensor], data_bytes: int) -> None:
    """The tensors must fill the file: one after the other, to its end."""
    edges = sorted((tensor.start, tensor.end) for tensor in tensors.values())
    if any(before[1] != after[0] for before, after in pairwise(edges)) or (edges and edges[0][0] != 0):
        raise ValueError("its tensors overlap or leave gaps")
    end = edges[-1][1] if edges else 0
    if end != data_bytes:
        raise ValueError(f"its tensors end at byte {end:,} of {data_bytes:,}")
