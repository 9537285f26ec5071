"""The opcodes of PTX text, counted: what a golden check of generated code compares."""

from __future__ import annotations

import re
from collections import Counter

ENTRY = re.compile(r"\.entry\s+([\w$.]+)")
OPCODE = re.compile(r"\s+(?:@!?%\w+\s+)?([a-z][\w:]*(?:\.[\w:]+)*)\b")


def opcodes(ptx: str) -> dict[str, Counter[str]]:
    """How often each instruction occurs in the text of each kernel, by its full name."""
    found: dict[str, Counter[str]] = {}
    kernel = ""
    for line in ptx.splitlines():
        entry = ENTRY.search(line)
        if entry:
            kernel = entry[1]
            found[kernel] = Counter()
        elif kernel:
            match = OPCODE.match(line)
            if match:
                found[kernel][match[1]] += 1
    return found


def count(counts: Counter[str], *prefixes: str) -> int:
    """How many instructions begin with one of these names."""
    return sum(n for name, n in counts.items() if name.startswith(prefixes))
