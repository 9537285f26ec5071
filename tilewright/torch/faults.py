"""A failure of tilewright itself does not end a training run.

The operators that could not be compiled, at worst all of a program, run in PyTorch, with a warning
that names a script which fails likewise. With the option ``fallback=False`` it is a
``CompilerBug``.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import fx

from tilewright import config
from tilewright.errors import CompilerBug
from tilewright.frontend.reproducer import first_line
from tilewright.torch.lines import user_line
from tilewright.torch.records import Fault

SCRIPT = '''\
"""Reproduces a failure of tilewright's PyTorch backend: run it with python.

{error}

It ends without an exception once the failure is mended.
"""

import torch
from torch import device, inf, nan  # noqa: F401 - the program may name them

from tilewright.torch import backend


class Program(torch.nn.Module):
{code}

torch.manual_seed(0)
inputs = [
{inputs}
]
run = torch.compile(
    Program(), backend=backend, fullgraph=True, dynamic=False, options={{"fallback": False}})
with torch.no_grad():
    run(*inputs)
print("compiled and ran: the failure does not occur")
'''


class BackendWarning(RuntimeWarning):
    """Operators run in PyTorch because tilewright failed to compile them."""


def fault_of(module: fx.GraphModule, error: Exception) -> Fault:
    """What to say about a failure, with a script that reproduces it if one can be written."""
    if isinstance(error, CompilerBug):
        found = re.search(r"reproducer: python (\S+)", str(error))
        failure = re.search(r"failure: +(.*)", str(error))
        return Fault(failure[1] if failure else first_line(error), found[1] if found else "",
                     user_line())
    try:
        path = str(write(module, error))
    except Exception:  # the first failure matters more than the second
        path = ""
    return Fault(first_line(error), path, user_line())


def bug(fault: Fault, error: Exception) -> CompilerBug:
    """The error of a failure, for those who want no program to run in PyTorch."""
    if isinstance(error, CompilerBug):
        return error
    return CompilerBug("\n".join([
        "this is a bug in tilewright, not in your program: a traced program could not be compiled",
        f"  failure:    {fault.message}", *_rest(fault)]))


def warn(fault: Fault, kind: str) -> None:
    """Say what runs in PyTorch."""
    what = f"{'an' if kind == 'inference' else 'a'} {kind} program"
    if fault.operators:
        what = f"{fault.operators} of {what}"
    lines = [
        f"tilewright could not compile {what}, which runs in PyTorch instead; this is a "
        "bug in tilewright, not in your program",
        f"  failure:    {fault.message}", *_rest(fault)]
    text = "\n".join(lines)
    if fault.loc is None:
        warnings.warn(text, BackendWarning, stacklevel=2)
    else:
        warnings.warn_explicit(text, BackendWarning, fault.loc.file, fault.loc.line)


def _rest(fault: Fault) -> list[str]:
    lines = []
    if fault.loc is not None:
        lines.append(f"  at:         {fault.loc.file}:{fault.loc.line} in {fault.loc.function}")
    if fault.reproducer:
        lines.append(f"  reproducer: python {fault.reproducer}")
        lines.append("  hint:       please report it with that file")
    return lines


def write(module: fx.GraphModule, error: Exception) -> Path:
    """Write the script of a traced program; its name follows from its contents."""
    code = module.print_readable(print_output=False, include_stride=False, include_device=False)
    body = code[code.index("    def forward"):]
    inputs = [_sample(n.meta.get("val")) for n in module.graph.nodes if n.op == "placeholder"]
    text = SCRIPT.format(error=first_line(error), code=body.rstrip(),
                         inputs="\n".join(f"    {line}," for line in inputs))
    folder = Path(config.get("reproducers") or tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    path = folder / f"tilewright_bug_{digest}.py"
    path.write_text(text)
    return path


def _sample(value: Any) -> str:
    """An expression for an input like this one."""
    if not isinstance(value, torch.Tensor):
        return repr(_hint(value))
    shape, strides = [tuple(map(_hint, v)) for v in (value.shape, value.stride())]
    extent = 0 if 0 in shape else 1 + sum((d - 1) * s for d, s in zip(shape, strides, strict=True))
    made = "randn" if value.is_floating_point() or value.is_complex() else "zeros"
    return f"torch.{made}({extent}).to({value.dtype}).as_strided({shape}, {strides})"


def _hint(value: Any) -> Any:
    """A symbolic number as the number that was traced with."""
    hint = getattr(getattr(value, "node", None), "hint", None)
    return value if hint is None else hint

