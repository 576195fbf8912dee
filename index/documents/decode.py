"""Bytes of a text into characters, whatever encoding they were saved in. The home of charset-normalizer."""

from index.documents.document import UnparsableDocument, refuse_too_long

BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
# What text files that are not Unicode are saved in. Asked about every encoding there is, the detector takes a
# short text for an exotic one.
LEGACY = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "koi8_r"),
    *("cp932", "gb18030", "big5", "euc_jp", "euc_kr"),
]
# UTF-8 with so few wrong bytes among its characters beyond ASCII is damaged UTF-8, nothing else.
MOST_DAMAGE = 0.1
REPLACEMENT = "\ufffd"
# The detector judges by samples; what is longer would only cost time and memory.
DETECTION_BYTES = 1 << 20


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of a file. `declared` is the encoding that it names itself, tried after UTF-8.

    Raises: UnparsableDocument if it is no text, in no encoding known, or too long.
    """
    refuse_too_long(len(data) // 4)
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return _bounded(_marked(data, encoding))
    if b"\0" in data:
        raise UnparsableDocument("it holds binary data, not text")
    for encoding in filter(None, ("utf-8", declared)):
        text = _decoded(data, encoding)
        if text is not None:
            return _bounded(text)
    return _bounded(_damaged_utf8(data) or _legacy(data))


def is_utf8(data: bytes) -> bool:
    return _decoded(data, "utf-8") is not None


def _bounded(text: str) -> str:
    refuse_too_long(len(text))
    return text


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError):
        return None


def _marked(data: bytes, encoding: str) -> str:
    """What begins with a byte order mark is that Unicode or damaged."""
    text = data.decode(encoding, "replace")
    if text.count(REPLACEMENT) > MOST_DAMAGE * len(text):
        raise UnparsableDocument(f"it is damaged: it begins as {encoding.upper()} text but does not go on so")
    return text


def _damaged_utf8(data: bytes) -> str | None:
    text = data.decode("utf-8", "replace")
    beyond_ascii = sum(character > "\x7f" for character in text)
    return text if text.count(REPLACEMENT) <= MOST_DAMAGE * beyond_ascii else None


def _legacy(data: bytes) -> str:
    """Windows-1252 where it reads no worse than another: most such files are Western."""
    from charset_normalizer import from_bytes

    found = list(from_bytes(data[:DETECTION_BYTES], cp_isolation=LEGACY))
    if not found:
        raise UnparsableDocument("it is text in an unknown encoding, or no text: save it as UTF-8")
    western = [
        match for match in found if "cp1252" in match.could_be_from_charset and match.chaos <= found[0].chaos
    ]
    return data.decode("cp1252" if western else found[0].encoding, "replace")
