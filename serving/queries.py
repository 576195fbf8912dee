"""Query strings that several routes read."""

import re

from starlette.requests import Request

from local_llm.errors import InvalidInputError

METADATA_PAIR = re.compile(r"metadata\[(.+)\]")


def metadata_filter(request: Request) -> dict[str, str] | None:
    """From `metadata[k]=v`, given as often as there are pairs, or `metadata=null`. None: no filter.

    Raises: InvalidInputError.
    """
    pairs: dict[str, str] = {}
    given = request.query_params.multi_items()
    found = [(name, value) for name, value in given if name.partition("[")[0] == "metadata"]
    for name, value in found:
        key = METADATA_PAIR.fullmatch(name)
        if key is not None and key[1] not in pairs:
            pairs[key[1]] = value
        elif name != "metadata" or value != "null" or len(found) > 1:
            raise InvalidInputError(
                f"{name[:80]}={value[:80]}: expected metadata[key]=value, each key once, or metadata=null",
                param="metadata",
            )
    return pairs if found else None
