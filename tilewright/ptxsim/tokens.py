"""PTX text as tokens, without comments."""

from __future__ import annotations

import re
from typing import NoReturn

from tilewright.ptxsim.faults import Fault

TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|//[^\n]*|/\*.*?\*/) | (?P<newline>\n) | (?P<string>"[^"]*")
    | (?P<number>0[fF][0-9a-fA-F]{8}\b|0[dD][0-9a-fA-F]{16}\b|0[xX][0-9a-fA-F]+U?|\d+\.\d+
        |\d+U?)
    | (?P<word>[%$_a-zA-Z][\w$]*(?:\.[\w:]+)*) | (?P<dotted>\.[\w:]+)
    | (?P<mark>[\[\]{}(),;:+\-!@|=<>~*])""",
    re.VERBOSE | re.DOTALL,
)


class Tokens:
    """The tokens of a text with their lines, and the place that a parser has reached."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, int]] = []
        self.at = 0
        at, line = 0, 1
        while at < len(text):
            match = TOKEN.match(text, at)
            if match is None:
                raise Fault(f"PTX line {line}: cannot read {text[at : at + 20]!r}")
            if match.lastgroup not in ("space", "newline"):
                self.tokens.append((match[0], line))
            line += match[0].count("\n")
            at = match.end()
        self.tokens.append(("", line))

    @property
    def next(self) -> str:
        """The next token, without taking it; "" at the end."""
        return self.tokens[self.at][0]

    def take(self) -> str:
        """Take the next token."""
        self.at += 1
        return self.tokens[self.at - 1][0]

    def accept(self, token: str) -> bool:
        """Take the next token if it is this one."""
        if self.next == token:
            self.at += 1
            return True
        return False

    def expect(self, token: str) -> None:
        """Take this token; Fault if another one is next."""
        if not self.accept(token):
            self.fail(f"expected {token!r}, got {self.next!r}")

    def fail(self, what: str) -> NoReturn:
        """Raise a Fault with the line of the next token."""
        raise Fault(f"PTX line {self.tokens[self.at][1]}: {what}")

    def skip_to(self, *ends: str) -> None:
        """Go to the next of these tokens."""
        while self.next not in ends and self.next:
            self.at += 1

    def skip_line(self) -> None:
        """Go to the next line of the text."""
        line = self.tokens[self.at - 1][1]
        while self.next and self.tokens[self.at][1] == line:
            self.at += 1
