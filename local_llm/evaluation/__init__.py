"""The same questions put to several models: how good, how fast and how dear their answers are."""
