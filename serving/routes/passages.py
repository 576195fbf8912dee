"""/passages: where a citation leads. The document's stored text with the cited characters marked."""

from html import escape
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from local_llm.audit import READ
from local_llm.errors import InvalidInputError
from serving.services import caller_of, note, services_of

router = APIRouter()

Count = Annotated[int, Query(ge=0, le=2**31)]

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui;max-width:50rem;margin:2rem auto;padding:0 1rem;white-space:pre-wrap}}
mark{{background:#fe8}}</style><h1>{title}</h1><p>{name}, version {version}</p>
<div>{before}<mark id="cited">{cited}</mark>{after}</div></html>"""


@router.get("/passages/{collection}/{document_id}", response_class=HTMLResponse)
async def open_passage(
    request: Request, collection: str, document_id: str, version: Count, start: Count = 0, end: Count = 0
) -> HTMLResponse:
    caller = caller_of(request)
    document = await services_of(request).index.document(caller, collection, document_id, version)
    text = document.text
    if not 0 <= start <= end <= len(text):
        raise InvalidInputError(f"characters {start} to {end}: the document has {len(text)}", param="start")
    note(request, caller, READ, document_id, vector_store_id=collection, version=document.version)
    page = PAGE.format(
        title=escape(document.title),
        name=escape(document.name),
        version=version,
        before=escape(text[:start]),
        cited=escape(text[start:end]),
        after=escape(text[end:]),
    )
    # The text is a stranger's: nothing in it may run or load.
    policy = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return HTMLResponse(page, headers=policy)
