"""Lines of the table that ``run.py`` prints."""

from __future__ import annotations

from typing import Any

from cases import Case

OURS = "tilewright"


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def heading(timed: bool) -> str:
    """The titles of the columns."""
    if not timed:
        return f"{'case':36}{'difference':>12}{'allowed':>10}"
    return (f"{'case':36}{'ours ms':>9}{'rate':>14}{'of copy':>9}{'best peer ms':>16}"
            f"{'peer/ours':>10}{'difference':>11}  others")


def rate(case: Case, milliseconds: float) -> str:
    """Arithmetic per second, of what is more than a pass over memory; else bytes per second."""
    if case.flops:
        return f"{number(case.flops / milliseconds / 1e9)} TFLOP/s"
    return f"{number(case.bytes / milliseconds / 1e6)} GB/s"


def of_copy(case: Case, milliseconds: float, copy_gbs: float | None) -> str:
    """The bytes per second as a part of what copying does, where nothing else takes time."""
    if case.flops or not copy_gbs or not case.bytes:
        return "-"
    return f"{100 * case.bytes / milliseconds / 1e6 / copy_gbs:.0f} %"


def lines(case: Case, rows: list[dict[str, Any]], copy_gbs: float | None) -> list[str]:
    """The line of a case, and one for each peer that failed."""
    ours = next(row for row in rows if row["peer"] == OURS)
    failed = [f"    {row['peer']}: {row['error']}" for row in rows if "error" in row]
    difference = f"{ours['difference']:.1e}" if "difference" in ours else "-"
    if copy_gbs is None:
        return [f"{case.name:36}{difference:>12}{case.tolerance:>10g}", *failed]
    times = {row["peer"]: row["min_ms"] for row in rows if "min_ms" in row}
    own = times.pop(OURS, None)
    best = min(times, key=times.__getitem__) if times else None
    others = ", ".join(f"{peer} {number(t)}" for peer, t in times.items() if peer != best)
    return [
        f"{case.name:36}{number(own):>9}{rate(case, own) if own else '-':>14}"
        f"{of_copy(case, own, copy_gbs) if own else '-':>9}"
        f"{f'{best} {number(times[best])}' if best else '-':>16}"
        f"{number(times[best] / own if best and own else None):>10}{difference:>11}  {others}",
        *failed,
    ]
