"""What a sentence says: its words that carry meaning, its numbers and names."""

import re

_ITEM_MARK = re.compile(r"^\s*(?:\d+[.)]|[-*])\s+")
_WORD = re.compile(r"\w+(?:[.,:/-]\w+)*", re.UNICODE)
# A word that begins no sentence and no part of one: with a capital it is a name.
_WITHIN = re.compile(r"(?<=\w[ ,])\s*([^\W\d_]\w*(?:[.,:/-]\w+)*)")
# Numbers are written either way. Not "one", which is mostly none.
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate("two three four five six seven eight nine ten eleven twelve".split(), 2)  # noqa: SIM905
}
# The commonest words of English: they stand in every sentence and support none.
_STOPWORDS = frozenset(
    """
    a about after all also an and any are as at be been before but by can could do does for from had has have he
    her his how i if in into is it its may more most must my no not of on only or our out over shall she should
    so some such than that the their them then there these they this those to under up was we were what when
    where which while who will with would you your
    """.split()  # noqa: SIM905
)


def content_words(text: str) -> set[str]:
    """Lower-cased words and numbers that carry meaning, folded ("plans": "plan", "seven": "7", "8,443": "8443").

    A list's own number ("2. ") is none of them.
    """
    words = (found.group().lower() for found in _WORD.finditer(without_item_mark(text)))
    return {_folded(word) for word in words if word not in _STOPWORDS}


def without_item_mark(text: str) -> str:
    """What an item of a list says."""
    return _ITEM_MARK.sub("", text)


def numbers_and_names(text: str) -> set[str]:
    """What a sentence may not say otherwise than its source does: its numbers, and its capitalised words but the
    first."""
    names = {_folded(word.lower()) for word in _WITHIN.findall(text) if word[0].isupper()}
    return names | {word for word in content_words(text) if any(character.isdigit() for character in word)}


def _folded(word: str) -> str:
    if word in _NUMBER_WORDS:
        return _NUMBER_WORDS[word]
    if word[0].isdigit():
        return word.replace(",", "")
    return word.removesuffix("s") if len(word) > 3 else word
