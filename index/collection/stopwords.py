"""Words that most English passages hold: they cost most of a search's time and tell little.

Fixed and few, so that no document decides on them. Words that turn a question round (no, not, more, other) stay.
Source: chosen by hand among English function words and question words; what leaving them out brought is measured
in docs/retrieval.md.
"""

STOPWORDS = """
a an and are as at be been but by can could did do does for from had has have how i if in into is it its may me
my of on or our should so such than that the their them then there these they this to was we were what when where
which who whom why will with would you your
"""
