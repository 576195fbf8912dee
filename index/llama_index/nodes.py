"""LlamaIndex's nodes as records, and what is found as nodes."""

import json
import math
from collections.abc import Mapping
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.utils import metadata_dict_to_node

from index.collection.attributes import LARGEST_NUMBER, kind_of
from index.interface import Hit, Record

# Attributes of our own beside the node's metadata. The first two are named as metadata_dict_to_node() reads them.
CONTENT = "_node_content"  # JSON of the node, its text and embedding left out: metadata of any shape, relationships
TYPE = "_node_type"
ID = "_node_id"
REF_DOC_ID = "_ref_doc_id"

# Records have one kind of line end and no NUL. The text of a node that has others is kept in its JSON.
CHANGED_IN_RECORDS = ("\r", "\0")

# Metadata of a passage that was found in a document: where it lies, as in a citation.
CITATION = "citation"
CITED = ("collection", "document", "document_id", "version", "filename", "title", "heading", "page", "start", "end")


def as_record(node: BaseNode, *, with_vector: bool) -> Record:
    """A record that node_of_record() turns into an equal node, but for the embedding.

    Metadata that is text, number, true or false can be filtered by; any other is kept and cannot.
    """
    text = node.get_content(MetadataMode.NONE)
    attributes = {key: value for key, value in node.metadata.items() if _can_be_compared(value)}
    attributes |= {CONTENT: _content(node, text), TYPE: node.class_name(), ID: node.node_id}
    if node.ref_doc_id is not None:
        attributes[REF_DOC_ID] = node.ref_doc_id
    return Record(node.node_id, text, attributes=attributes, vector=node.embedding if with_vector else None)


def node_of_record(record: Record) -> BaseNode:
    if CONTENT in record.attributes:
        return _restored(record.attributes, record.text)
    return TextNode(id_=record.name, text=record.text, metadata=dict(record.attributes))


def node_of_hit(hit: Hit) -> BaseNode:
    """The node that was added; for a document's passage one of its own, with a citation in its metadata.

    A passage's id tells document, version and characters; the document is its source node.
    """
    if CONTENT in hit.attributes:
        return _restored(hit.attributes, hit.text)
    return TextNode(
        id_=f"{hit.document_id}/{hit.version}/{hit.start}-{hit.end}",
        text=hit.text,
        start_char_idx=hit.start,
        end_char_idx=hit.end,
        metadata={**hit.attributes, CITATION: {key: getattr(hit, key) for key in CITED}},
        excluded_embed_metadata_keys=[CITATION],
        excluded_llm_metadata_keys=[CITATION],
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=hit.document_id)},
    )


def _can_be_compared(value: Any) -> bool:
    kind = kind_of(value)
    return kind in ("text", "boolean") or (
        kind == "number" and math.isfinite(value) and abs(value) <= LARGEST_NUMBER
    )


def _content(node: BaseNode, text: str) -> str:
    content = {**node.model_dump(mode="json"), "embedding": None}
    if not any(character in text for character in CHANGED_IN_RECORDS):
        content = {key: value for key, value in content.items() if key not in ("text", "text_resource")}
    return json.dumps(content)


def _restored(attributes: Mapping[str, Any], text: str) -> BaseNode:
    node = metadata_dict_to_node({CONTENT: attributes[CONTENT], TYPE: attributes[TYPE]})
    if not node.get_content(MetadataMode.NONE):
        node.set_content(text)
    return node
