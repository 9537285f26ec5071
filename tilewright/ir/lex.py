"""Words, numbers and names in the text of both languages: writing them and reading them back."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from tilewright.errors import Location, UserError
from tilewright.ir.sizes import WORDS, Dim, largest, named, smallest
from tilewright.ir.types import DTYPES, DType, bool_

Item = TypeVar("Item")

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
STRING = r'"(?:[^"\\]|\\.)*"'
TOKEN = re.compile(rf"""
    (?P<space>[ \t\r\n]+)
  | (?P<comment>\#[^\n]*)
  | (?P<value>%(?:{NAME}|[0-9]+|{STRING}))
  | (?P<number>0x[0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
  | (?P<name>{NAME})
  | (?P<string>{STRING})
  | (?P<symbol>->|\.\.|//|<<|>>|[<>=!+*]=|[-+*/%<>=&|^()\[\]{{}}:,@])
""", re.VERBOSE)
LOCATION = re.compile(r"#\s*(.+):(\d+) in (.+?)\s*$")

RESERVED = frozenset((*DTYPES, *WORDS)) - {"min", "max", "floordiv"}
"""Words that are quoted where they serve as names."""


@dataclass(frozen=True, slots=True)
class Token:
    """A word of the text and where it stands, both counted from 1."""

    kind: str
    text: str
    line: int
    column: int


class Reader:
    """The tokens of a text, read from left to right; errors are ``UserError`` with a caret."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.comments: dict[int, str] = {}
        self.tokens: list[Token] = []
        self.at = 0
        line, start, position = 1, 0, 0
        while position < len(text):
            found = TOKEN.match(text, position)
            if found is None:
                bad = Token("symbol", text[position], line, position - start + 1)
                raise self.error(f"the character {text[position]!r} has no meaning here", bad)
            word, kind = found.group(), str(found.lastgroup)
            if kind == "comment":
                self.comments[line] = word
            elif kind != "space":
                self.tokens.append(Token(kind, word, line, position - start + 1))
            if "\n" in word:
                line += word.count("\n")
                start = position + word.rindex("\n") + 1
            position = found.end()
        self.tokens.append(Token("end", "the end of the text", line, len(text) - start + 1))

    @property
    def next(self) -> Token:
        """The token that is read next."""
        return self.tokens[self.at]

    def error(self, what: str, token: Token | None = None, hint: str | None = None) -> UserError:
        """An error at a token (the next one unless given), with its line and a caret."""
        token = token or self.next
        line = self.lines[token.line - 1]
        caret = " " * (token.column - 1) + "^"
        return UserError(
            f"line {token.line}, column {token.column}: {what}\n    {line}\n    {caret}", hint=hint
        )

    def take(self, *kinds: str) -> Token:
        """The next token, which must be of one of these kinds."""
        token = self.next
        if token.kind not in kinds:
            wanted = " or ".join(f"a {k}" for k in kinds)
            raise self.error(f"expected {wanted}, found {token.text}")
        self.at += 1
        return token

    def accept(self, text: str) -> bool:
        """Skip the next token if it is ``text``."""
        found = self.next.text == text and self.next.kind in ("name", "symbol")
        self.at += found
        return found

    def expect(self, text: str) -> Token:
        """Skip the next token, which must be ``text``."""
        if not self.accept(text):
            raise self.error(f"expected '{text}', found {self.next.text}")
        return self.tokens[self.at - 1]

    def listed(self, close: str, item: Callable[[], Item]) -> list[Item]:
        """Items separated by commas up to ``close``, which is skipped; a last comma is allowed."""
        result: list[Item] = []
        while not self.accept(close):
            if result:
                self.expect(",")
                if self.accept(close):
                    break
            result.append(item())
        return result

    def name(self) -> str:
        """A name, bare or quoted."""
        return unquoted(self.take("name", "string").text)

    def integer(self) -> int:
        """A whole number."""
        sign = -1 if self.accept("-") else 1
        token = self.take("number")
        if not token.text.isdigit():
            raise self.error(f"expected a whole number, found {token.text}", token)
        return sign * int(token.text)

    def dim(self) -> Dim:
        """A size: a number, or sums and products of named sizes: ``2*n + floordiv(m, 3)``."""
        total = self.dim_product()
        while self.next.text in ("+", "-"):
            sign = self.take("symbol").text
            part = self.dim_product()
            total = total + part if sign == "+" else total - part
        return total

    def dim_product(self) -> Dim:
        """Factors of a size."""
        result = self.dim_factor()
        while self.accept("*"):
            result = result * self.dim_factor()
        return result

    def dim_factor(self) -> Dim:
        """A number, a name, a size in parentheses, or a quotient or extreme of two."""
        if self.accept("-"):
            return -self.dim_factor()
        if self.accept("("):
            inner = self.dim()
            self.expect(")")
            return inner
        if self.next.kind == "number":
            return self.integer()
        token = self.take("name")
        if token.text in ("min", "max", "floordiv"):
            self.expect("(")
            sizes = self.listed(")", self.dim)
            if len(sizes) != 2:
                raise self.error(f"{token.text} takes two sizes", token)
            if token.text == "floordiv":
                return sizes[0] // sizes[1]
            return (smallest if token.text == "min" else largest)(*sizes)
        try:
            return named(token.text)
        except ValueError as problem:
            raise self.error(str(problem), token) from None

    def one_of(self, what: str, table: Iterable[str], token: Token | None = None) -> str:
        """The name of a row of ``table``. Raises ``UserError`` with the nearest names."""
        token = token or self.take("name")
        names = list(table)
        if token.text in names:
            return token.text
        near = difflib.get_close_matches(token.text, names, 3, 0.7)
        hint = f"did you mean {' or '.join(near)}?" if near else None
        raise self.error(f"there is no {what} called {token.text}", token, hint)

    def dtype(self) -> DType:
        """An element type."""
        return DTYPES[self.one_of("element type", DTYPES)]

    def location(self, line: int) -> Location | None:
        """The user's line that the comment on this line of the text names."""
        found = LOCATION.match(self.comments.get(line, ""))
        return Location(found[1], int(found[2]), found[3]) if found else None

    def at_number(self) -> bool:
        """Whether a number or truth follows."""
        token = self.next
        if token.text == "-" and self.at + 1 < len(self.tokens):
            token = self.tokens[self.at + 1]
        words = ("inf", "nan", "true", "false")
        return token.kind == "number" or (token.kind == "name" and token.text in words)

    def number(self) -> int | float | bool | Bits:
        """A number as written: a hexadecimal one is a bit pattern."""
        sign = -1 if self.accept("-") else 1
        token = self.take("number", "name")
        text = token.text
        if text in ("true", "false"):
            return text == "true"
        if text in ("inf", "nan"):
            return sign * (math.inf if text == "inf" else math.nan)
        if token.kind == "name":
            raise self.error(f"expected a number, found {text}", token)
        if text.startswith("0x"):
            return Bits(int(text, 16))
        return sign * (int(text) if text.isdigit() else float(text))


@dataclass(frozen=True, slots=True)
class Bits:
    """A number known by the bit pattern of its element type."""

    bits: int

    def scalar(self, dtype: DType) -> Any:
        """The NumPy scalar."""
        return np.frombuffer(self.bits.to_bytes(dtype.itemsize, "little"), dtype.numpy)[0]


def number_text(value: Any, dtype: DType) -> str:
    """A number that :meth:`Reader.number` reads back exactly: a decimal, else its bits."""
    if dtype is bool_:
        return "true" if value else "false"
    if not dtype.is_float:
        return str(int(value))
    with np.errstate(all="ignore"):
        exact = np.asarray(value).astype(dtype.numpy)
        text = decimal_text(value if isinstance(value, (int, float)) else exact[()])
        again = np.asarray(float(text)).astype(dtype.numpy)
    if again.tobytes() == exact.tobytes():
        return text
    return f"0x{int.from_bytes(exact.tobytes(), 'little'):0{dtype.itemsize * 2}x}"


def decimal_text(value: Any) -> str:
    """The shortest decimal for a Python or NumPy number in its own precision."""
    if isinstance(value, (int, float)):
        return repr(float(value))
    if isinstance(value, (np.float16, np.float32)):
        return str(value)
    return str(np.float32(value))


def name_text(name: str) -> str:
    """A name, quoted unless it is a plain word."""
    plain = re.fullmatch(NAME, name) is not None and name not in RESERVED
    return name if plain else json.dumps(name)


def unquoted(text: str) -> str:
    """The name that :func:`name_text` wrote."""
    return str(json.loads(text)) if text.startswith('"') else text


def location_text(loc: Location | None) -> str:
    """The comment at the end of a line that names the user's line."""
    return f"  # {loc.file}:{loc.line} in {loc.function}" if loc else ""


def annotated(line: str, note: str | None) -> list[str]:
    """A line and, under it, what is wrong with it."""
    if note is None:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    return [line, *(f"{indent}# error: {part}" for part in note.split("\n"))]
