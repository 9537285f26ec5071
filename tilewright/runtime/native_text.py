"""LLVM IR with a shorthand for words of memory and for C functions known by address.

The runtime's own machine code works on blocks of 64-bit words whose places have names:

    %x = at %p PLACE                  the address of a word
    %x = word i64 %p PLACE            the word itself, as any type
    put i64 %v %p PLACE               stores it
    %x = capi ptr %api NAME(ptr %a)   calls the function whose address stands in word NAME of %api

A place is a number, a name from the table given, or an SSA value. Addresses of C functions come
from memory and never stand in the text: the same text gives the same machine code everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_AT = re.compile(r"^\s*(%[\w.]+) = at (%[\w.]+) (\S+)$")
_WORD = re.compile(r"^\s*(%[\w.]+) = word (\S+) (%[\w.]+) (\S+)$")
_PUT = re.compile(r"^\s*put (\S+) (\S+) (%[\w.]+) (\S+)$")
_CAPI = re.compile(r"^\s*(?:(%[\w.]+) = )?capi (\S+) (%[\w.]+) (\w+)\((.*)\)$")


def expand(text: str, places: Mapping[str, int]) -> str:
    """Plain LLVM IR for a text in shorthand. Raises ``KeyError`` for an unknown place."""
    lines: list[str] = []
    for number, line in enumerate(text.splitlines()):
        lines += _expand_line(line, f"%s{number}", places)
    return "\n".join(lines) + "\n"


def _expand_line(line: str, fresh: str, places: Mapping[str, int]) -> list[str]:
    def at(name: str, pointer: str, place: str) -> str:
        literal = place.lstrip("-").isdigit() or place[0] == "%"
        index = place if literal else str(places[place])
        return f"  {name} = getelementptr i64, ptr {pointer}, i64 {index}"

    if found := _AT.match(line):
        name, pointer, place = found.groups()
        return [at(name, pointer, place)]
    if found := _WORD.match(line):
        name, type_, pointer, place = found.groups()
        return [at(fresh, pointer, place), f"  {name} = load {type_}, ptr {fresh}, align 8"]
    if found := _PUT.match(line):
        type_, value, pointer, place = found.groups()
        return [at(fresh, pointer, place), f"  store {type_} {value}, ptr {fresh}, align 8"]
    if found := _CAPI.match(line):
        name, type_, pointer, place, args = found.groups()
        function = f"{fresh}f"
        result = f"{name} = " if name else ""
        return [
            at(fresh, pointer, place), f"  {function} = load ptr, ptr {fresh}, align 8",
            f"  {result}call {type_} {function}({args})",
        ]
    return [line]
