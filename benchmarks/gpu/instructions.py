"""The hard instructions of PTX, each in a small kernel with data, to be recorded on hardware.

A kernel's parameters are its tensor maps, its inputs and its outputs. Operands that live in
registers are rows of words, one row per thread; operands in shared memory are an image of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tilewright.ptxsim.descriptor import Descriptor
from tilewright.ptxsim.formats import FORMATS, encode, pack
from tilewright.ptxsim.fragments import MMA_TYPES
from tilewright.ptxsim.recording import Case, MapOf, blank
from tilewright.ptxsim.tensormap import DataType, Swizzle
from tilewright.ptxsim.warp_matrix import mma
from tilewright.ptxsim.warpgroup_matrix import wgmma

FLOAT_SUM = 2e-6
"""How far a sum on tensor cores may be from the rounded true one: they truncate alignments."""

HEAD = """.version {version}
.target {target}
.address_size 64
.shared .align 1024 .b8 image[32768];
.shared .align 8 .b64 ready;
.visible .entry case({parameters})
{{
  .reg .pred %p<9>;
  .reg .b32 %r<400>;
  .reg .b64 %d<400>;
  .reg .b64 %in<9>, %out<9>;
  .reg .b32 %t, %n<9>;
"""


def kernel(
    body: str, inputs: int, outputs: int, maps: int = 0, target: str = "sm_90a"
) -> str:
    """A kernel `case` around a body: pointers in %in0.., %out0.., the thread in %t."""
    names = [f"  .param .align 64 .b8 map{i}[128]" for i in range(maps)]
    names += [f"  .param .u64 in{i}" for i in range(inputs)]
    names += [f"  .param .u64 out{i}" for i in range(outputs)]
    text = HEAD.format(version="8.0", target=target, parameters="\n" + ",\n".join(names) + "\n")
    lines = ["mov.u32 %t, %tid.x;"]
    for kind, count in (("in", inputs), ("out", outputs)):
        for i in range(count):
            lines += [f"ld.param.u64 %{kind}{i}, [{kind}{i}];",
                      f"cvta.to.global.u64 %{kind}{i}, %{kind}{i};"]
    lines += [line.strip() for line in body.strip().splitlines()]
    return text + "".join(f"  {line}\n" for line in lines) + "  ret;\n}\n"


def row(pointer: str, words: int, bits: int = 32) -> list[str]:
    """%d0 = pointer + this thread's row of words."""
    return [f"mad.wide.u32 %d0, %t, {words * bits // 8}, {pointer};"]


def loaded(pointer: str, registers: list[str], bits: int = 32) -> list[str]:
    """This thread's row of words into registers."""
    return row(pointer, len(registers), bits) + [
        f"ld.global.b{bits} {name}, [%d0+{i * bits // 8}];" for i, name in enumerate(registers)
    ]


def stored(pointer: str, registers: list[str], bits: int = 32) -> list[str]:
    """Registers into this thread's row of words."""
    return row(pointer, len(registers), bits) + [
        f"st.global.b{bits} [%d0+{i * bits // 8}], {name};" for i, name in enumerate(registers)
    ]


def names(first: int, count: int, bits: int = 32) -> list[str]:
    """Registers by number: %r.. of 32 bits, %d.. of 64."""
    return [f"%{'r' if bits == 32 else 'd'}{first + i}" for i in range(count)]


def vector(registers: list[str]) -> str:
    """{a, b, ...}."""
    return "{" + ", ".join(registers) + "}"


def numbers(rng: np.random.Generator, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Random codes of a format: all integers, floats of magnitudes that differ."""
    format = FORMATS[name]
    if format.integer:
        return rng.integers(0, 1 << format.bits, shape, np.uint64).astype(format.code_type)
    return encode(rng.standard_normal(shape) * 2.0 ** rng.integers(-3, 3, shape), format)


# Every shape and type of mma that hardware of sm_90 has.
MMA_RESULTS = {"f16": ("f32", "f16"), "f64": ("f64",), "e4m3": (), "e5m2": ()}


def mma_names() -> Iterator[str]:
    """mma.sync.aligned... of every shape and type."""
    for shape, types in MMA_TYPES.items():
        for t in types:
            results = ("s32",) if FORMATS[t].integer else MMA_RESULTS.get(t, ("f32",))
            for d in results:
                ends = (".and.popc", ".xor.popc") if t == "b1" else ("",)
                clamps = ("", ".satfinite") if t in ("s8", "u8") else ("",)
                for clamp in clamps:
                    for end in ends:
                        yield f"mma.sync.aligned.{shape}.row.col{clamp}.{d}.{t}.{t}.{d}{end}"


def mma_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Random operands in registers, one warp."""
    for name in mma_names():
        form = mma(tuple(name.split(".")))
        bits = 64 if form.a_format.bits == 64 else 32
        operands, registers, first = [], [], 10
        for operand in "abc":
            format = getattr(form, f"{operand}_format")
            codes = numbers(rng, (32, getattr(form, operand).elements), format.name)
            operands.append(pack(codes, format))
            registers.append(names(first, operands[-1].shape[1], bits))
            first += len(registers[-1])
        result = names(first, form.d.elements * form.d_format.bits // bits, bits)
        body = [line for i in range(3) for line in loaded(f"%in{i}", registers[i], bits)]
        body.append(f"{name} {', '.join(map(vector, [result, *registers]))};")
        body += stored("%out0", result, bits)
        yield Case(
            name, kernel("\n".join(body), 3, 1, target="sm_80" if bits == 32 else "sm_90a"), 32,
            tuple(operands), (blank((32, len(result)), f"uint{bits}"),),
            tolerance={"f32": FLOAT_SUM, "f16": 2e-3, "f64": 1e-15}.get(form.d_format.name, 0.0),
            floats={"f16": "float16", "f64": "float64"}.get(form.d_format.name, "float32"),
        )


COPY_IN = """
mov.u32 %r390, image;
mad.lo.u32 %r391, %t, 16, %r390;
mad.wide.u32 %d390, %t, 16, %in0;
mov.u32 %r392, %t;
IN:
ld.global.v4.b32 {%r393, %r394, %r395, %r396}, [%d390];
st.shared.v4.b32 [%r391], {%r393, %r394, %r395, %r396};
add.u32 %r391, %r391, STEP;
add.u64 %d390, %d390, STEP;
add.u32 %r392, %r392, THREADS;
setp.lt.u32 %p8, %r392, COUNT;
@%p8 bra IN;
fence.proxy.async.shared::cta;
bar.sync 0;
"""
COPY_OUT = """
bar.sync 0;
mov.u32 %r390, image;
mad.lo.u32 %r391, %t, 16, %r390;
mad.wide.u32 %d390, %t, 16, %out0;
mov.u32 %r392, %t;
OUT:
ld.shared.v4.b32 {%r393, %r394, %r395, %r396}, [%r391];
st.global.v4.b32 [%d390], {%r393, %r394, %r395, %r396};
add.u32 %r391, %r391, STEP;
add.u64 %d390, %d390, STEP;
add.u32 %r392, %r392, THREADS;
setp.lt.u32 %p8, %r392, COUNT;
@%p8 bra OUT;
"""


def copied(text: str, threads: int, size: int) -> str:
    """COPY_IN or COPY_OUT of `size` bytes, a multiple of 16 times the threads."""
    text = text.replace("STEP", str(16 * threads)).replace("THREADS", str(threads))
    return text.replace("COUNT", str(size // 16))


def matrix_cases(rng: np.random.Generator) -> Iterator[Case]:
    """ldmatrix, stmatrix and movmatrix on an image of 1024 bytes, rows in a random order."""
    image = rng.integers(0, 256, 1024, np.uint8)
    rows = (rng.permutation(32) * 32).astype(np.uint32)[:, None]
    for count in (1, 2, 4):
        for trans in ("", ".trans"):
            held = names(10, count)
            form = f"sync.aligned.m8n8.x{count}{trans}.shared.b16"
            address = [*loaded("%in1", ["%n0"]), "mov.u32 %n1, image;", "add.u32 %n0, %n0, %n1;"]
            body = [copied(COPY_IN, 32, 1024), *address,
                    f"ldmatrix.{form} {vector(held)}, [%n0];", *stored("%out0", held)]
            yield Case(f"ldmatrix.{form}", kernel("\n".join(body), 2, 1), 32, (image, rows),
                       (blank((32, count), "uint32"),))
            words = rng.integers(0, 1 << 32, (32, count), np.uint32)
            body = [copied(COPY_IN, 32, 1024), *address, *loaded("%in2", held),
                    f"stmatrix.{form} [%n0], {vector(held)};", copied(COPY_OUT, 32, 1024)]
            yield Case(f"stmatrix.{form}", kernel("\n".join(body), 3, 1), 32,
                       (image, rows, words), (blank((1024,), "uint8"),))
    words = rng.integers(0, 1 << 32, (32, 1), np.uint32)
    body = [*loaded("%in0", ["%r10"]), "movmatrix.sync.aligned.m8n8.trans.b16 %r11, %r10;",
            *stored("%out0", ["%r11"])]
    yield Case("movmatrix.trans", kernel("\n".join(body), 1, 1), 32, (words,),
               (blank((32, 1), "uint32"),))


WGMMA_TYPES = (
    "m64n16k16.f32.bf16.bf16", "m64n16k16.f16.f16.f16", "m64n16k8.f32.tf32.tf32",
    "m64n16k32.f32.e4m3.e5m2", "m64n16k32.s32.s8.s8", "m64n128k16.f32.f16.f16",
)
A_SIZE, B_SIZE = 9216, 17408


def wgmma_operands(types: str) -> Iterator[tuple[str, Descriptor, Descriptor, str]]:
    """Names, descriptors of A and B relative to their images, and the transposes."""
    sixteen = types.split(".")[2] in ("bf16", "f16")
    for span in (0, 32, 64, 128):
        stride = 8 * span if span else 256
        plain = Descriptor(0, 128, stride, span)
        yield f"span{span}", plain, plain, ", 0, 0" if sixteen else ""
        if sixteen:
            blocks = Descriptor(0, 16 * span if span else 128, 8 * span if span else 256, span)
            yield f"span{span}.mn", blocks, blocks, ", 1, 1"
            yield f"span{span}.b_mn", plain, blocks, ", 0, 1"
    inside = Descriptor(32, 128, 1024, 128)
    yield "span128.second_step", inside, inside, ", 0, 0" if sixteen else ""
    third = Descriptor(3 * 128, 128, 1024, 128, base_offset=3)
    yield "span128.base_offset", third, third, ", 0, 0" if sixteen else ""


def wgmma_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Operands in images of random numbers, 128 threads, accumulators that start as given."""
    for types in WGMMA_TYPES:
        name = f"wgmma.mma_async.sync.aligned.{types}"
        form = wgmma(tuple(name.split(".")))
        count = form.n * form.d_format.bits // 64
        images = [
            numbers(rng, (size * 8 // f.bits,), f.name).view(np.uint8)
            for f, size in ((form.a_format, A_SIZE), (form.b_format, B_SIZE))
        ]
        start = pack(numbers(rng, (128, form.n // 2), form.d_format.name), form.d_format)
        acc = names(10, count)
        for label, a, b, transposes in wgmma_operands(types):
            if form.n > 16 and not label.startswith("span128"):
                continue
            scales = "" if form.d_format.integer else ", 1, -1"
            body = [
                copied(COPY_IN, 128, A_SIZE + B_SIZE), *loaded("%in1", acc),
                "mov.u32 %n0, image;", "shr.u32 %n0, %n0, 4;", "cvt.u64.u32 %d10, %n0;",
                f"add.u64 %d11, %d10, {a.encode()};",
                f"add.u64 %d12, %d10, {b.encode() + A_SIZE // 16};",
                "setp.eq.u32 %p0, %t, %t;", "wgmma.fence.sync.aligned;",
                f"{name} {vector(acc)}, %d11, %d12, %p0{scales}{transposes};",
                "wgmma.commit_group.sync.aligned;", "wgmma.wait_group.sync.aligned 0;",
                *stored("%out0", acc),
            ]
            yield Case(
                f"{name}.{label}", kernel("\n".join(body), 2, 1), 128,
                (np.concatenate(images), start), (blank((128, count), "uint32"),),
                tolerance={"f32": 4e-6, "f16": 4e-3}.get(form.d_format.name, 0.0),
                floats="float16" if form.d_format.name == "f16" else "float32",
            )


TMA_MAPS = {
    "2d": MapOf(0, "UINT16", (40, 20), (96,), (64, 16), (1, 1), "B128"),
    "2d.span64": MapOf(0, "UINT16", (40, 20), (96,), (32, 16), (1, 1), "B64"),
    "2d.span32": MapOf(0, "UINT16", (40, 20), (96,), (16, 16), (1, 1), "B32"),
    "2d.plain": MapOf(0, "UINT8", (90, 20), (96,), (48, 16), (1, 1)),
    "2d.nan": MapOf(0, "BFLOAT16", (40, 20), (96,), (16, 16), (1, 1), "NONE", "NAN"),
    "2d.nan32": MapOf(0, "FLOAT32", (20, 20), (96,), (16, 16), (1, 1), "NONE", "NAN"),
    "1d": MapOf(0, "FLOAT32", (450,), (), (64,), (1,)),
    "3d": MapOf(0, "FLOAT32", (10, 6, 4), (48, 320), (8, 4, 2), (1, 1, 1)),
    "3d.thin": MapOf(0, "FLOAT32", (10, 6, 4), (48, 320), (8, 5, 3), (1, 2, 2)),
    "4d": MapOf(0, "UINT32", (4, 3, 3, 3), (32, 112, 400), (4, 2, 2, 2), (1,) * 4),
    "5d": MapOf(0, "UINT32", (4, 3, 3, 3, 2), (32, 112, 400, 960), (4, 2, 2, 2, 2), (1,) * 5),
}
TMA_PLACES = {"inside": 0, "before": -3, "beyond": 5}


def tma_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Tiles loaded at several places, shared memory dumped; one stored and one added."""
    source = rng.integers(0, 256, 2048, np.uint8)
    image = np.full(4096, 0xA5, np.uint8)
    for label, view in TMA_MAPS.items():
        rank = len(view.dims)
        size = DataType[view.data_type].size
        for b, s in zip(view.box, view.element_strides, strict=True):
            size *= -(-b // s)
        for place, start in TMA_PLACES.items():
            at = vector([str(start)] * rank)
            # The tensor is input 0, so the image is copied from input 1.
            body = copied(COPY_IN, 32, 4096).replace("%in0", "%in1") + f"""
            mov.u32 %n0, image;
            mov.u32 %n1, ready;
            mov.b64 %d1, map0;
            cvta.param.u64 %d2, %d1;
            setp.ne.u32 %p0, %t, 0;
            @%p0 bra WAIT;
            mbarrier.init.shared.b64 [%n1], 1;
            fence.proxy.async.shared::cta;
            mbarrier.arrive.expect_tx.shared.b64 %d3, [%n1], {size};
            cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
                [%n0], [%d2, {at}], [%n1];
            WAIT:
            bar.sync 0;
            POLL:
            mbarrier.try_wait.parity.shared.b64 %p1, [%n1], 0;
            @!%p1 bra POLL;
            """ + copied(COPY_OUT, 32, 4096)
            yield Case(f"tma.load.{label}.{place}", kernel(body, 2, 1, maps=1), 32,
                       (source, image), (blank((4096,), "uint8"),), (view,))
    yield from tma_stores(rng)


def tma_stores(rng: np.random.Generator) -> Iterator[Case]:
    """Tiles stored to and added to a tensor, also where parts of them are outside."""
    forms = {
        "store": "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group",
        "add": "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group",
        "max": "cp.reduce.async.bulk.tensor.2d.global.shared::cta.max.tile.bulk_group",
    }
    image = rng.integers(0, 256, 2048, np.uint8)
    for label, form in forms.items():
        for swizzle, width in ((Swizzle.B128, 32), (Swizzle.B32, 8), (Swizzle.NONE, 12)):
            for place, start in TMA_PLACES.items():
                view = MapOf(1, "INT32", (20, 20), (96,), (width, 8), (1, 1), swizzle.name)
                body = copied(COPY_IN, 32, 2048) + f"""
                mov.u32 %n0, image;
                mov.b64 %d1, map0;
                cvta.param.u64 %d2, %d1;
                setp.ne.u32 %p0, %t, 0;
                @%p0 bra END;
                {form} [%d2, {{{start}, {start}}}], [%n0];
                cp.async.bulk.commit_group;
                cp.async.bulk.wait_group 0;
                END:
                """
                yield Case(f"tma.{label}.{swizzle.name}.{place}", kernel(body, 1, 1, maps=1), 32,
                           (image,), (blank((2048,), "uint8"),), (view,))


def all_cases() -> list[Case]:
    """Every case, with data that do not depend on when or where this runs."""
    rng = np.random.default_rng(20)
    makers = (mma_cases, matrix_cases, wgmma_cases, tma_cases)
    return [case for make in makers for case in make(rng)]
