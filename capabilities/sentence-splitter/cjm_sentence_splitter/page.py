"""Reads the files that describe a page, and makes paragraphs of its lines.

What not: sentences. Must hold: no word is lost, added or moved; whatever is wrong with a file is told with its path.
"""

import os
import re

TEXT_BYTES_MAX = 16 * 1024 * 1024
# Marks after which a paragraph may end, and those that may close it.
_ENDS = ".?!:…"
_CLOSERS = "\"'”’»)]"
_BLANK_LINES = re.compile(r"\n[ \t\f\v]*(?:\n[ \t\f\v]*)+")
# The ending of a word on the next line. What begins so in upper case is a compound: Anglo-\nSaxon.
_HYPHENATED = re.compile(r"(?<=\w)[-\u00ad\u2010]\n[ \t]*(?=[^\W\d_])(?=[a-z\u00df-\u00ff])")


class UnusablePage(ValueError):
    """A file is not what it should be."""


def read_text(path):
    """The text of the file, which must be UTF-8; a page break is a line break."""
    if not os.path.isfile(path):
        hint = "" if os.path.isabs(path) else ": give an absolute path"
        raise UnusablePage(f"there is no file {os.path.abspath(path)}{hint}")
    size = os.stat(path).st_size
    if size > TEXT_BYTES_MAX:
        raise UnusablePage(f"{path} is {size} bytes long, more than the {TEXT_BYTES_MAX} allowed: split it first")
    with open(path, "rb") as file:
        content = file.read()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnusablePage(f"{path} is not UTF-8 text (byte {error.start}): read the page first (ocr, read)") from error
    return text.replace("\r\n", "\n").replace("\f", "\n")


def paragraphs(text):
    """The paragraphs, each on one line. Blank lines part them, but not in the middle of a sentence: readers of pictures
    see gaps where a line is longer or a page is askew."""
    found = []
    for block in _BLANK_LINES.split(text.strip()):
        joined = " ".join(_HYPHENATED.sub("", block).split())
        if not joined:
            continue
        if found and not found[-1].rstrip(_CLOSERS).endswith(tuple(_ENDS)) and joined[0].islower():
            found[-1] += " " + joined
        else:
            found.append(joined)
    return found


def confidences(path):
    """How sure the reader was of each word, 0 to 100, from tesseract's table of words."""
    heads, *rows = [line.split("\t") for line in read_text(path).splitlines()] or [[]]
    try:
        sure, word = heads.index("conf"), heads.index("text")
    except ValueError as error:
        raise UnusablePage(f"{path} is no table of words as tesseract writes it (no `conf` or `text`)") from error
    found = []
    for number, row in enumerate(rows, 2):
        if len(row) <= max(sure, word) or not row[word].strip():
            continue
        try:
            found.append(float(row[sure]))
        except ValueError as error:
            raise UnusablePage(f"{path}, line {number}: the confidence {row[sure]!r} is no number") from error
    return found
