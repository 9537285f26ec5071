"""The page that an explanation prints."""

from __future__ import annotations

import os
from typing import Any

from tilewright.compiler.cost import scaled
from tilewright.torch.report import number

RAISING = ("aten._linalg_check_errors", "aten._assert_async")
"""Operators that look at a computed value."""


def page(e: Any) -> str:
    """An :class:`~tilewright.torch.explain.Explanation` as text."""
    backward = f", backward {ms(e.backward)}" if e.backward is not None else ""
    lines = [
        f"{e.name}: forward {ms(e.forward)}{backward}, on {e.threads} thread"
        f"{'' if e.threads == 1 else 's'}",
        f"peaks measured here: {scaled(e.peaks.flops, 'flop/s')}, "
        f"{scaled(e.peaks.bandwidth, 'B/s')} of memory; what stays in a cache can be quicker",
    ]
    if e.recompiled:
        lines.append(f"{e.recompiled} graphs were compiled again while the same call was repeated: "
                     "see TORCH_LOGS=recompiles")
    if not e.programs:
        lines.append("nothing of it is compiled with the backend tilewright")
    for program in e.programs:
        lines += _program_lines(program)
    if len(e.modules) > 1:
        lines += ["", "by module"]
        lines += [f"  {ms(s):>10}  {m or '(no module)'}" for m, s in list(e.modules.items())[:20]]
    lines += [f"tilewright failed, so that a program runs in PyTorch: {f}" for f in e.faults]
    return "\n".join(lines)


def _program_lines(p: Any) -> list[str]:
    lines = [
        "",
        f"graph {p.graph}, {p.kind} of {p.name}, {p.loc or 'an unknown line'}: {ms(p.seconds)}, "
        f"{p.nodes} nodes, {number(len(p.kernels), 'kernel')} in "
        f"{ms(sum(k.seconds for k in p.kernels))}",
    ]
    if p.kernels:
        width = max(len(_name(k)) for k in p.kernels)
        head = f"{'time':>10}  {'of all':>6}  {'rate':>13}  {'bytes':>10}  {'of peak':>7}"
        lines.append(f"  {head}  {'kernel':<{width}}  module, line")
        total = sum(k.seconds for k in p.kernels) or 1.0
        lines += [_kernel_line(k, total, width) for k in p.kernels]
    for call in p.calls:
        raising = call.target.startswith(RAISING)
        other = "raises or does nothing" if raising else "draws random numbers"
        why = f": {call.reason}" if call.reason else f" ({other})"
        where = f"; {place(call.module, call.loc)}" if call.loc else ""
        lines.append(f"  {ms(call.seconds):>10}  PyTorch's {call.target}{why}{where}")
    if p.ends is not None:
        cost = f"; until the next graph {ms(p.gap)}" if p.gap is not None else ""
        lines.append(f"  graph break at {p.ends}{cost}")
    return lines


def _kernel_line(k: Any, total: float, width: int) -> str:
    rate = scaled(k.flops / k.seconds, "flop/s") if k.seconds and k.flops else ""
    peak = f"{100 * k.floor / k.seconds:.0f} %" if k.seconds else ""
    return (f"  {ms(k.seconds):>10}  {100 * k.seconds / total:>4.0f} %  {rate:>13}  "
            f"{scaled(k.bytes, 'B'):>10}  {peak:>7}  {_name(k):<{width}}  "
            f"{place(k.module, k.loc)}").rstrip()


def _name(k: Any) -> str:
    """A kernel, and how often it runs if it is a step's."""
    return k.name if k.runs == 1 else f"{k.runs} x {k.name}"


def place(module: str, loc: Any) -> str:
    """A module path and a line, short."""
    line = f"{os.path.basename(loc.file)}:{loc.line}" if loc is not None else ""
    return ", ".join(part for part in (module, line) if part)


def ms(seconds: float) -> str:
    """Seconds in milliseconds, or microseconds where they are few."""
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"
