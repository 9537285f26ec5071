"""Every machine instruction of the Kernel language as PTX: what it means, on its architecture."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from block_kernels import compiled, entries, module, run
from opcodes import count, opcodes

from tilewright.codegen.gpu.assembler import assemble
from tilewright.codegen.gpu.bulk import BULK
from tilewright.codegen.gpu.instructions import CODE
from tilewright.errors import CompilerBug, Unsupported
from tilewright.ir.instructions import FORMS, INSTRUCTIONS, Place, Row
from tilewright.ir.types import DType, bf16, f32
from tilewright.ptxsim.faults import Fault
from tilewright.ptxsim.simulator import Simulator

RANDOM = np.random.default_rng(17)
MATRIX = [row for row in INSTRUCTIONS.values() if row.kind == "matrix"]
FRAGMENTS = [row for row in MATRIX if row.name.startswith("mma")]
LOADS = [row for row in MATRIX if row.name.startswith("ldmatrix")]
GROUPS = [row for row in MATRIX if row.name.startswith("wgmma")]


def dtypes(row: Row) -> tuple[DType, ...]:
    """What the second operand may hold."""
    place = row.operands[1]
    assert isinstance(place, Place)
    return place.dtypes


def cases(rows: list[Row]) -> list:
    return [pytest.param(row, dtype, id=f"{row.name}-{dtype}")
            for row in rows for dtype in dtypes(row)]


def numbers(dtype: DType, *shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(dtype.numpy)


def fragment_kernel(row: Row, dtype: DType) -> str:
    c, a, b = (row.operands[n].count for n in (0, 1, 2))
    return f"""kernel f(x: f32[{32 * c}] in, p: {dtype}[{32 * a}] in, q: {dtype}[{32 * b}] in,
      y: f32[{32 * c}] out) {{
  for g in 0..1 block {{
    for t in 0..32 thread {{
      alloc c: f32[{c}] register
      alloc a: {dtype}[{a}] register
      alloc b: {dtype}[{2 * b}] register
      for v in 0..{c} vector(4, 1) {{
        c[v] = x[t * {c} + v]
      }}
      for i in 0..{a} unroll {{
        a[i] = p[t * {a} + i]
      }}
      for i in 0..{b} unroll {{
        b[{b} + i] = q[t * {b} + i]
      }}
      run {row.name}(c[0], a[0], b[{b}])
      for v in 0..{c} vector(4, 1) {{
        y[t * {c} + v] = c[v]
      }}
    }}
  }}
}}
"""


@pytest.mark.parametrize("row,dtype", cases(FRAGMENTS))
def test_products_of_a_warp(row: Row, dtype: DType) -> None:
    c, a, b = (row.operands[n].count for n in (0, 1, 2))
    x, p, q = numbers(f32, 32, c), numbers(dtype, 32, a), numbers(dtype, 32, b)
    y = run(fragment_kernel(row, dtype), [x, p, q, np.zeros_like(x)], row.least)[3]
    np.testing.assert_allclose(y, row.meaning(x, p, q), rtol=1e-5, atol=1e-5)


def load_kernel(row: Row, dtype: DType) -> str:
    return f"""kernel f(x: {dtype}[256] in, y: {dtype}[256] out) {{
  for g in 0..1 block {{
    alloc tile: {dtype}[256] shared
    for t in 0..32 thread {{
      alloc r: {dtype}[8] register
      for v in 0..8 vector(8, 1) {{
        tile[t * 8 + v] = x[t * 8 + v]
      }}
      barrier
      run {row.name}(r[0], tile[t * 5 % 32 * 8])
      for v in 0..8 vector(8, 1) {{
        y[t * 8 + v] = r[v]
      }}
    }}
  }}
}}
"""


@pytest.mark.parametrize("row,dtype", cases(LOADS))
def test_loads_of_matrices(row: Row, dtype: DType) -> None:
    x = numbers(dtype, 32, 8)
    y = run(load_kernel(row, dtype), [x, np.zeros_like(x)], row.least)[1]
    np.testing.assert_array_equal(y, row.meaning(x[np.arange(32) * 5 % 32]))


STEPS = ((0, 0), (16, 16), (48, 32))
"""Where the products of a test begin: the element of A's and of B's rows, if those have 64."""


def steps(row: Row) -> list[tuple[int, int]]:
    """Where the products begin in tiles that lie along k, or across."""
    if row.name.endswith("_tf32"):
        return [(i // 2, j // 2) for i, j in STEPS]
    form = next(f for f in sorted(FORMS, key=len, reverse=True) if row.name.endswith(f))
    a, b = (64 if across else 1 for across in FORMS[form])
    return [(i * a, j * b) for i, j in STEPS]


def group_kernel(row: Row, dtype: DType) -> str:
    """Products of tiles that threads store, of three steps of 16 in two groups."""
    count_, n = row.operands[0].count, row.operands[0].count * 2
    runs = [f"run {row.name}(c[0], a[{i}], b[{j}])" for i, j in steps(row)]
    return f"""kernel f(x: f32[{128 * count_}] in, p: {dtype}[4096] in, q: {dtype}[{64 * n}] in,
      y: f32[{128 * count_}] out) {{
  for g in 0..1 block {{
    alloc small: f32[3] shared
    alloc a: {dtype}[4096] shared
    alloc b: {dtype}[{64 * n}] shared
    for t in 0..128 thread {{
      alloc c: f32[{count_}] register
      for i in 0..4 {{
        for v in 0..8 vector(8, 1) {{
          a[i * 1024 + t * 8 + v] = p[i * 1024 + t * 8 + v]
        }}
      }}
      for i in 0..{n // 16} {{
        for v in 0..8 vector(8, 1) {{
          b[i * 1024 + t * 8 + v] = q[i * 1024 + t * 8 + v]
        }}
      }}
      for i in 0..{count_} unroll {{
        c[i] = x[t * {count_} + i]
      }}
      run async_fence()
      barrier
      run wgmma_fence()
      {runs[0]}
      {runs[1]}
      run wgmma_commit()
      {runs[2]}
      run wgmma_commit()
      run wgmma_wait(1)
      run wgmma_wait(0)
      for i in 0..{count_} unroll {{
        y[t * {count_} + i] = c[i] * 2.0:f32
      }}
    }}
  }}
}}
"""


@pytest.mark.parametrize("row,dtype", cases(GROUPS))
def test_products_of_a_warpgroup(row: Row, dtype: DType) -> None:
    count_ = row.operands[0].count
    n = 2 * count_
    x, p, q = numbers(f32, 128, count_), numbers(dtype, 4096), numbers(dtype, 64 * n)
    y = run(group_kernel(row, dtype), [x, p, q, np.zeros_like(x)], row.least)[3]
    want = x
    for i, j in steps(row):
        want = row.meaning(want, p, i, q, j)
    np.testing.assert_allclose(y, 2 * want, rtol=1e-5, atol=1e-4)


COPIES = """kernel f(n: i64, x: f32[n] in, y: f32[256] out) {
  for g in 0..1 block {
    alloc ring: f32[256] shared
    for t in 0..32 thread {
      for s in 0..2 unroll {
        run async_copy(ring[s * 128 + t * 4], x[s * 128 + t * 4], s * 128 + t * 4 < n)
        run async_commit()
      }
      run async_wait(1)
      barrier
      for v in 0..4 vector(4, 1) {
        y[t * 4 + v] = ring[127 - (t * 4 + v)]
      }
      run async_wait(0)
      barrier
      for v in 0..4 vector(4, 1) {
        y[128 + t * 4 + v] = ring[255 - (t * 4 + v)]
      }
    }
  }
}
"""


@pytest.mark.parametrize("simulator", [
    None, Simulator(1, copies="lazy"), Simulator(2, copies="lazy")], ids=["plain", "1", "2"])
def test_copies_under_way(simulator: Simulator | None) -> None:
    x = numbers(f32, 200)
    y = run(COPIES, [x, np.zeros(256, np.float32)], simulator=simulator, n=200)[1]
    full = np.append(x, np.zeros(56, np.float32)).reshape(2, 128)
    np.testing.assert_array_equal(y, full[:, ::-1].ravel())


def test_a_wait_too_short_is_seen() -> None:
    text = COPIES.replace("async_wait(0)", "async_wait(1)")
    x, y = numbers(f32, 200), np.zeros(256, np.float32)
    want = run(COPIES, [x, y], n=200)[1]
    try:
        got = run(text, [x, y], simulator=Simulator(1, copies="lazy"), n=200)[1]
    except Fault:
        return
    assert not np.array_equal(got, want)


# --- text --------------------------------------------------------------------------------------
def kernel(row: Row, dtype: DType) -> str:
    if row in FRAGMENTS:
        return fragment_kernel(row, dtype)
    return load_kernel(row, dtype) if row in LOADS else group_kernel(row, dtype)


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="there is no ptxas")
@pytest.mark.parametrize("row,dtype", cases([*FRAGMENTS, *LOADS, *GROUPS[:4], *GROUPS[-2:]]))
def test_ptxas_takes_them(row: Row, dtype: DType) -> None:
    # ptxas 13 begins with sm_75, which has what sm_70 has.
    least = "sm_75" if row.least == "sm_70" else row.least
    assembled = assemble(compiled(kernel(row, dtype), least), least)
    assert not assembled.warnings
    for report in assembled.reports.values():
        assert report.stack == report.spill_stores == report.spill_loads == 0, report


def test_every_row_has_code() -> None:
    assert set(CODE) | set(BULK) == set(INSTRUCTIONS)


def test_registers_are_passed_as_they_are() -> None:
    """What a load of matrices gives goes into a product without an instruction between them."""
    text = """kernel f(x: bf16[256] in, y: f32[128] out) {
  for g in 0..1 block {
    alloc tile: bf16[256] shared
    for t in 0..32 thread {
      alloc a: bf16[8] register
      alloc c: f32[4] register
      run async_copy(tile[t * 8], x[t * 8], true)
      run async_commit()
      run async_wait(0)
      barrier
      for i in 0..4 unroll {
        c[i] = 0.0:f32
      }
      run ldmatrix_x4(a[0], tile[t * 8])
      run mma_m16n8k16(c[0], a[0], a[4])
      run mma_m16n8k16(c[0], a[0], a[0])
      for v in 0..4 vector(4, 1) {
        y[t * 4 + v] = c[v]
      }
    }
  }
}
"""
    ptx = compiled(text)
    (found,) = opcodes(ptx).values()
    assert count(found, "mma.sync") == 2 and count(found, "ldmatrix", "cp.async.cg") == 2
    assert found["st.global.v4.b32"] == 1
    assert not count(found, "shr", "or", "prmt", "cvt.u16", "cvt.rn", "ld.global",
                     "ld.shared", "st.shared", "cvta.to.shared")
    between = ptx[ptx.index("ldmatrix"):ptx.rindex("mma.sync")]
    (found,) = opcodes(".entry f\n" + between).values()
    assert not count(found, "shl", "and", "mov.b16")


ROUNDED = """kernel f(x: f32[512] in, y: f32[128] out) {
  for g in 0..1 block {
    for t in 0..32 thread {
      alloc a: bf16[8] register
      alloc b: bf16[8] register
      alloc c: f32[4] register
      for i in 0..8 unroll {
        a[i] = cast<bf16>(x[t * 8 + i] * 2.0:f32)
      }
      for v in 0..8 vector(8, 1) {
        b[v] = cast<bf16>(x[256 + t * 8 + v])
      }
      for i in 0..4 unroll {
        c[i] = 0.0:f32
      }
      run mma_m16n8k16(c[0], a[0], b[4])
      for v in 0..4 vector(4, 1) {
        y[t * 4 + v] = c[v]
      }
    }
  }
}
"""


def test_operands_are_rounded_in_pairs() -> None:
    x = numbers(f32, 2, 32, 8)
    a, b = x.astype(bf16.numpy)
    y = run(ROUNDED, [x, np.zeros((32, 4), np.float32)])[1]
    row = INSTRUCTIONS["mma_m16n8k16"]
    want = row.meaning(np.zeros((32, 4)), (2 * x[0]).astype(bf16.numpy), b[:, 4:])
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    (found,) = opcodes(compiled(ROUNDED)).values()
    assert found["cvt.rn.bf16x2.f32"] == 6
    assert not count(found, "cvt.rn.bf16.f32", "shr", "prmt", "or", "cvt.u16")


def test_what_a_warp_does_together_stays_out_of_branches() -> None:
    """Only some threads use a product and a shuffled value: all of them make it."""
    text = """kernel f(x: bf16[256] in, y: f32[128] out) {
  for g in 0..1 block {
    for t in 0..32 thread {
      alloc a: bf16[8] register
      alloc c: f32[4] register
      for v in 0..8 vector(8, 1) {
        a[v] = x[t * 8 + v]
      }
      for i in 0..4 unroll {
        c[i] = 0.0:f32
      }
      run mma_m16n8k16(c[0], a[0], a[4])
      let s: f32 = shuffle xor(cast<f32>(x[t * 8]), 1)
      if t % 4 == 1 {
        for v in 0..4 vector(4, 1) {
          y[t * 4 + v] = c[v] + s
        }
      }
    }
  }
}
"""
    x = numbers(bf16, 32, 8)
    y = run(text, [x, np.zeros((32, 4), np.float32)])[1]
    want = INSTRUCTIONS["mma_m16n8k16"].meaning(np.zeros((32, 4)), x, x[:, 4:])
    want = want + x[np.arange(32) ^ 1, :1].astype(np.float32)
    want[np.arange(32) % 4 != 1] = 0
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    ptx = compiled(text)
    branch = re.search(r"@!?%p\d+ bra", ptx)
    assert branch and max(ptx.rindex("mma.sync"), ptx.rindex("shfl.sync")) < branch.start()


def test_loops_that_wait_stay_loops() -> None:
    text = """kernel f(x: f32[8192] in, y: f32[128] out) {
  for g in 0..1 block {
    alloc ring: f32[256] shared
    for t in 0..32 thread {
      alloc sum: f32[4] register
      for v in 0..4 vector(4, 1) {
        sum[v] = 0.0:f32
      }
      for s in 0..STEPS {
        run async_copy(ring[t * 4], x[s * 128 + t * 4], true)
        run async_commit()
        run async_wait(0)
        barrier
        for v in 0..4 vector(4, 1) {
          sum[v] = sum[v] + ring[124 - t * 4 + v]
        }
        barrier
      }
      for v in 0..4 vector(4, 1) {
        y[t * 4 + v] = sum[v]
      }
    }
  }
}
"""
    x = numbers(f32, 64, 32, 4)
    y = run(text.replace("STEPS", "64"), [x, np.zeros(128, np.float32)])[1]
    np.testing.assert_allclose(y, x.sum(0)[::-1].ravel(), rtol=1e-4, atol=1e-4)
    for steps, copies in (("64", 1), ("4", 4)):
        (found,) = opcodes(compiled(text.replace("STEPS", steps))).values()
        assert count(found, "cp.async.cg") == copies


def test_uses_stay_after_their_wait() -> None:
    text = compiled(group_kernel(INSTRUCTIONS["wgmma_m64n64k16"], bf16), "sm_90a")
    products = [m.start() for m in re.finditer("wgmma.mma_async", text)]
    waits = [m.start() for m in re.finditer("wgmma.wait_group", text)]
    uses = [m.start() for m in re.finditer(r"add\.f32|mul\.f32|st\.global", text)]
    assert max(products) < min(waits) < max(waits) < min(uses)


def test_an_architecture_without_them() -> None:
    found = entries(fragment_kernel(INSTRUCTIONS["mma_m16n8k16"], bf16), "sm_75")
    with pytest.raises(Unsupported, match=r"sm_75 does not have llvm.nvvm.mma.m16n8k16"):
        module(found, "sm_75")
    found = entries(group_kernel(INSTRUCTIONS["wgmma_m64n64k16"], bf16), "sm_90")
    with pytest.raises(Unsupported, match=r"sm_90 does not have (llvm.nvvm.)?wgmma"):
        module(found, "sm_90")


def test_an_instruction_in_a_vector_loop() -> None:
    text = COPIES.replace("s in 0..2 unroll", "s in 0..2 vector(2, 1)")
    with pytest.raises(CompilerBug, match="async_copy in a vector loop"):
        entries(text)
