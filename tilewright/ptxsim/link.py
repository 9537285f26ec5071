"""A kernel with the functions that it calls as one piece of code.

Functions lie before the kernel, so that in lockstep threads that are in one come back to those that
went on. Registers and local variables of a function exist once, hence none may call itself.
"""

from __future__ import annotations

from dataclasses import replace

from tilewright.ptxsim.faults import UnknownInstruction
from tilewright.ptxsim.syntax import Kernel, Module, Symbol


def linked(module: Module, kernel: Kernel) -> Kernel:
    """The kernel and its functions. UnknownInstruction: one is missing, or calls itself."""
    order: list[Kernel] = []
    _visit(module, kernel, order, ())
    whole = replace(kernel, registers={}, variables=[], code=[], labels={}, tables={})
    for part in order:
        if part is kernel:
            whole.start = len(whole.code)
        else:
            whole.labels[part.name] = len(whole.code)
        whole.labels |= {name: at + len(whole.code) for name, at in part.labels.items()}
        whole.tables |= part.tables
        whole.registers |= part.registers
        whole.variables += part.variables
        whole.code += part.code
    return whole


def called(kernel: Kernel) -> set[str]:
    """The names of the functions that a kernel or a function calls directly."""
    operands = (i.operands[1] for i in kernel.code if i.parts[0] == "call")
    return {o.name for o in operands if isinstance(o, Symbol)}


def _visit(module: Module, part: Kernel, order: list[Kernel], above: tuple[str, ...]) -> None:
    if part.name in above:
        raise UnknownInstruction(
            f"{' calls '.join((*above[above.index(part.name) :], part.name))}: recursion is not "
            "simulated")
    for name in sorted(called(part)):
        if name not in module.functions:
            raise UnknownInstruction(f"{part.name} calls {name}, which has no body")
        _visit(module, module.functions[name], order, (*above, part.name))
    if part not in order:
        order.append(part)
