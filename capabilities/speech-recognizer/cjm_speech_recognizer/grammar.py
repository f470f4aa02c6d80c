"""Finds what is wrong with a JSGF grammar before the decoder sees it.

The decoder only says "failed to parse", whatever the fault, and silently accepts a rule that refers to nothing. This
names the fault and its line. What not: a full parser; what passes here may still be refused by the decoder.
Must hold: a grammar that the decoder takes and that can recognise something is never called faulty.
"""

import re

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<comment>//[^\n]*|/\*.*?\*/)
      | (?P<tag>\{(?:\\.|[^{}\\])*\})
      | (?P<weight>/\s*[0-9.eE+-]+\s*/)
      | (?P<rule><[^<>\s]+>)
      | (?P<quoted>"(?:\\.|[^"\\])*")
      | (?P<sign>[=|()\[\];*+])
      | (?P<word>[^\s=|()\[\];*+<>{}"/]+)
      | (?P<stray>.)""",
    re.VERBOSE | re.DOTALL,
)
_CLOSING = {"(": ")", "[": "]"}
_BUILT_IN_RULES = ("<NULL>", "<VOID>")
UNKNOWN_WORDS_SHOWN_MAX = 5


class GrammarFault(ValueError):
    """What is wrong, with its line."""


def check(text, is_word):
    """Raises `GrammarFault` at the first fault; `is_word` says whether the dictionary has a word."""
    if not text.lstrip().startswith("#JSGF V1.0"):
        raise GrammarFault("line 1: a JSGF grammar begins with `#JSGF V1.0;`")
    statements = list(_statements(text))
    if len(statements) < 2 or _texts(statements[1])[:1] != ["grammar"] or len(statements[1]) != 2:
        raise GrammarFault("line 2: after the first line comes `grammar NAME;`")
    defined, used, words, public = {}, [], [], False
    for tokens in statements[2:]:
        if tokens[0][1] == "import":
            continue
        is_public = tokens[0][1] == "public"
        public = public or is_public
        head = tokens[1:] if is_public else tokens
        if len(head) < 3 or head[0][0] != "rule" or head[1][1] != "=":
            raise GrammarFault(f"line {tokens[0][2]}: a rule is written `public <name> = …;` or `<name> = …;`")
        defined[head[0][1]] = head[0][2]
        _check_brackets(head[2:])
        for kind, piece, line in head[2:]:
            if kind == "rule":
                used.append((piece, line))
            elif kind in ("word", "quoted"):
                words.extend((word, line) for word in piece.strip('"').split())
    if not public:
        raise GrammarFault("no rule is `public`: at least one must be, it is what can be said")
    for rule, line in used:
        # A dotted name belongs to an imported grammar.
        if rule not in defined and rule not in _BUILT_IN_RULES and "." not in rule:
            raise GrammarFault(f"line {line}: the rule {rule} is used and nowhere defined")
    _check_words(words, is_word)


def _statements(text):
    """Tokens `(kind, text, line)` of each statement, without its semicolon."""
    line, tokens = 1, []
    for match in _TOKEN.finditer(text):
        kind, piece = match.lastgroup, match.group()
        if kind == "stray":
            raise GrammarFault(f"line {line}: `{piece}` has no place here")
        if piece == ";":
            if tokens:
                yield tokens
            tokens = []
        elif kind not in ("space", "comment", "tag", "weight"):
            tokens.append((kind, piece, line))
        line += piece.count("\n")
    if tokens:
        raise GrammarFault(f"line {tokens[-1][2]}: the last rule does not end with `;`")


def _texts(tokens):
    return [piece for _, piece, _ in tokens]


def _check_brackets(tokens):
    open_brackets = []
    for _, piece, line in tokens:
        if piece in _CLOSING:
            open_brackets.append((piece, line))
        elif piece in _CLOSING.values():
            if not open_brackets or _CLOSING[open_brackets.pop()[0]] != piece:
                raise GrammarFault(f"line {line}: a `{piece}` that closes nothing")
        elif piece == "=":
            raise GrammarFault(f"line {line}: a second `=` in one rule: does the rule before it end with `;`?")
    if open_brackets:
        piece, line = open_brackets[-1]
        raise GrammarFault(f"line {line}: a `{piece}` without its `{_CLOSING[piece]}`")


def _check_words(words, is_word):
    unknown = {}
    for word, line in words:
        if word not in unknown and not is_word(word):
            unknown[word] = line
    if not unknown:
        return
    shown = ", ".join(f"`{word}` (line {line})" for word, line in list(unknown.items())[:UNKNOWN_WORDS_SHOWN_MAX])
    more = len(unknown) - UNKNOWN_WORDS_SHOWN_MAX
    lower = next((word for word in unknown if word != word.lower() and is_word(word.lower())), None)
    hint = f"; words are written in lower case: `{lower.lower()}`" if lower else ""
    raise GrammarFault(f"not in the dictionary: {shown}{f' and {more} more' if more > 0 else ''}{hint}")
