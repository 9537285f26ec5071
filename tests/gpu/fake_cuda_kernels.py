"""Modules, kernels and tensor maps of the pretended CUDA."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from fake_cuda_types import (
    CUfunction,
    CUjit_option,
    CUmodule,
    CUresult,
    Refusal,
    cuuint64_t,
    guarded,
)

from tilewright.errors import UserError
from tilewright.ptxsim import tensormap
from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.simulator import Program, Simulator


class Kernels:
    """What a pretended CUDA can do with PTX; the rest of it is in fake_cuda.py."""

    allowed: dict[int, int]
    new: Any
    known: Any
    chip: Any
    stream: Any

    @guarded
    def cuModuleLoadDataEx(self, image: Any, count: int, options: Any, values: Any) -> Any:
        chip = self.chip()
        assert count == len(options) == len(values) and image.endswith(b"\0")
        text = image[:-1].decode()
        major, minor = re.search(r"\.version (\d+)\.(\d+)", text).groups()
        if 1000 * (int(major) + 4) + 10 * int(minor) > self.version:
            raise Refusal(CUresult.CUDA_ERROR_UNSUPPORTED_PTX_VERSION)
        arch, own = re.search(r"\.target sm_(\d+)(a?)", text).groups()
        here = 10 * chip.capability[0] + chip.capability[1]
        if int(arch) > here or own and int(arch) != here:
            raise Refusal(CUresult.CUDA_ERROR_NO_BINARY_FOR_GPU)
        try:
            return self.new(CUmodule, chip.sim.load(text))
        except Fault as fault:
            log = values[list(options).index(CUjit_option.CU_JIT_ERROR_LOG_BUFFER)]
            said = f"ptxas fatal: {fault}".encode()
            log[: len(said)] = said
            raise Refusal(CUresult.CUDA_ERROR_INVALID_PTX) from fault

    @guarded
    def cuModuleUnload(self, module: Any) -> None:
        self.known(module, Program)
        del self.objects[int(module)]

    @guarded
    def cuModuleGetFunction(self, module: Any, name: bytes) -> Any:
        program = self.known(module, Program)
        if name.decode() not in program.module.kernels:
            raise Refusal(CUresult.CUDA_ERROR_NOT_FOUND)
        return self.new(CUfunction, (program, name.decode(), int(module)))

    @guarded
    def cuFuncSetAttribute(self, function: Any, which: int, value: int) -> None:
        if which != 8 or value > 227 << 10:
            raise Refusal(CUresult.CUDA_ERROR_INVALID_VALUE)
        self.known(function, tuple)
        self.allowed[int(function)] = value

    @guarded
    def cuLaunchKernel(
        self, function: Any, gx: int, gy: int, gz: int, bx: int, by: int, bz: int, shared: int,
        stream: Any, parameters: int, extra: Any,
    ) -> None:
        """The arguments are read where ``parameters`` has their addresses, or from the bytes of
        ``extra``.
        """
        chip, handle = self.stream(stream)
        work = self.launch_of(
            chip, function, (gx, gy, gz), (bx, by, bz), shared, parameters, extra)
        chip.ask(handle, work)

    def launch_of(
        self, chip: Any, function: Any, grid: Any, block: Any, shared: int, parameters: int,
        extra: Any,
    ) -> Callable[[], None]:
        """What runs a kernel, with the arguments that are in memory now."""
        program, name, module = self.known(function, tuple)
        (gx, gy, gz), (bx, by, bz) = grid, block
        self.known(module, Program)
        small = 0 < gx < 1 << 31 and 0 < gy < 1 << 16 and 0 < gz < 1 << 16
        if not small or bx * by * bz > 1024 or shared > self.allowed.get(int(function), 48 << 10):
            raise Refusal(CUresult.CUDA_ERROR_INVALID_VALUE)
        wanted = program.module.kernels[name].parameters
        if parameters:
            addresses = (ctypes.c_uint64 * len(wanted)).from_address(parameters)
            arguments = [ctypes.string_at(a, p.size)
                         for a, p in zip(addresses, wanted, strict=True)]
        else:
            arguments, end = [], 0
            for p in wanted:
                end = -(-end // p.alignment) * p.alignment + p.size
                arguments.append(extra[end - p.size : end])
            if end != len(extra):
                raise Refusal(CUresult.CUDA_ERROR_INVALID_VALUE)
        simulator: Simulator = chip.sim.simulator
        return lambda: simulator.launch(program, name, grid, block, arguments, shared)

    @guarded
    def cuTensorMapEncodeTiled(self, kind: Any, rank: int, address: int, *how: Any) -> Any:
        sizes = [tuple(map(int, each)) for each in how[:4]]
        try:
            record = tensormap.encode(kind, address, *sizes, *how[4:])
        except UserError:
            raise Refusal(CUresult.CUDA_ERROR_INVALID_VALUE) from None
        words = [cuuint64_t(int.from_bytes(record[i : i + 8], "little")) for i in range(0, 128, 8)]
        return SimpleNamespace(opaque=words)
