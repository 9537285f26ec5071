"""The command line: ``python -m tilewright doctor``, ``opt FILE``, ``run FILE``, ``cache ...``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tilewright import __version__
from tilewright.errors import TilewrightError
from tilewright.report import diskcache, graphfile
from tilewright.report.doctor import doctor


def arguments() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(
        prog="tilewright", description="Look at this installation, or at a graph's text."
    )
    parser.add_argument("--version", action="version", version=f"tilewright {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "doctor", help="the machine, the threads, the versions, the switches, and a self-check"
    )
    opt = commands.add_parser("opt", help="compile the graph in a file and print its stages")
    opt.add_argument("--stage", help="print this stage only, such as loops, asm or simplify")
    run = commands.add_parser(
        "run", help="run the graph in a file on random arrays, compared with the interpreter"
    )
    run.add_argument("--seed", type=int, default=0, help="of the random arrays (default 0)")
    for command in (opt, run):
        command.add_argument("file", type=Path, help="a graph's text, as as_text('graph') gives it")
    cache = commands.add_parser("cache", help="what is kept on disk of earlier compilations")
    actions = cache.add_subparsers(dest="action", required=True)
    actions.add_parser("ls", help="list the entries")
    actions.add_parser("clear", help="remove all entries")
    actions.add_parser("verify", help="read all entries and remove the damaged ones")
    why = actions.add_parser("why", help="tell what the cache has of the graph in a file")
    why.add_argument("file", type=Path, help="a graph's text, as as_text('graph') gives it")
    return parser


def look_at_cache(options: argparse.Namespace) -> tuple[str, bool]:
    """The text of a command on the disk cache, and whether all is well."""
    if options.action == "verify":
        return diskcache.verify()
    if options.action == "why":
        return diskcache.why(graphfile.load(options.file)), True
    return (diskcache.clear() if options.action == "clear" else diskcache.listing()), True


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; 0: well, 1: an error or a failed check, 2: a command that does not exist."""
    options = arguments().parse_args(words)
    healthy = True
    try:
        if options.command == "doctor":
            text, healthy = doctor()
        elif options.command == "cache":
            text, healthy = look_at_cache(options)
        elif options.command == "opt":
            text = graphfile.stages(graphfile.load(options.file), options.stage)
        else:
            text, healthy = graphfile.run(graphfile.load(options.file), options.seed)
    except TilewrightError as error:
        print(f"tilewright: {error}", file=sys.stderr)
        return 1
    try:
        print(text.rstrip("\n"), flush=True)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
