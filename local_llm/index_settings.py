"""The settings of documents and retrieval."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from local_llm.section import Section


class IndexSettings(Section):
    """[index]: documents and retrieval."""

    encoder: str = Field("all-MiniLM-L6-v2", description="Name of the encoder in the model store.")
    precision: Literal["auto", "float32", "int8"] = Field(
        "auto",
        description=(
            "How the encoder computes. `auto`: int8 on a CPU if it was seen to rank as well, else float32; on a "
            "GPU bfloat16. A collection stays with the precision it was built with."
        ),
    )
    chunk_tokens: int = Field(128, ge=16, description="Longest passage, in the encoder's tokens, title included.")
    overlap_tokens: int = Field(16, ge=0, description="Tokens that neighbouring passages share.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where encoder and FAISS run.")
    parse_timeout_seconds: float = Field(120, gt=0, description="Longest time one document may take to parse.")
    structure: Literal["auto", "exact", "ivf"] = Field(
        "auto", description="How vectors are searched; `auto`: by their number and the device."
    )
    project_quota_bytes: int = Field(
        100 * 1024**3,
        gt=0,
        description="Space for the collections of one project: once they take it, nothing is added to them.",
    )
    target_recall: float = Field(
        0.95, gt=0, le=1, description="Share of the ten nearest that approximate search has to find."
    )
    milvus_uri: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description=(
            "Milvus that holds the vectors of collections for their search, as http://host:19530. Empty: they are "
            "held in memory, by FAISS."
        ),
    )
    milvus_token_file: Path | None = Field(
        None, description="File with the token for Milvus: `user:password` or an API key."
    )
    milvus_collections: list[str] = Field(
        default_factory=list, description="Ids of the collections that are held by Milvus; empty: all."
    )
    milvus_prefix: str = Field(
        "local_llm",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$",
        description="What names in Milvus begin with: another for each box that uses the same Milvus.",
    )
    milvus_timeout_seconds: float = Field(10, gt=0, description="Longest time one question to Milvus may take.")
    record_queries: bool = Field(
        True, description="Keep the vectors of the last 1,000 queries of a collection, to tune its search with."
    )
    parse_memory_bytes: int = Field(
        2 << 30, ge=512 << 20, description="Most memory the parser of documents may take."
    )
