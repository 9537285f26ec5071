"""Recordings of what hardware did: small kernels, their inputs and outputs, as JSON.

A recording is made once on a GPU and replayed by the simulator in tests. One file holds the
device, the date and a list of cases; texts and arrays that cases share stand in it once, by their
digest, arrays as zlib-compressed base64.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = 1
BLANK = 0x5A
KERNEL = "case"
"""The name of the kernel in the PTX of a case."""


@dataclass(frozen=True)
class MapOf:
    """A tensor map argument: a view of an array, with the other arguments of `encode`.

    `array` counts inputs, then outputs. The names of data type and swizzle are those of
    `tensormap`.
    """

    array: int
    data_type: str
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    element_strides: tuple[int, ...]
    swizzle: str = "NONE"
    fill: str = "ZERO"


@dataclass(frozen=True)
class Case:
    """One kernel with its data. Its parameters are the tensor maps, the inputs, the outputs.

    outputs    what a run left, of arrays that were `blank` before; not recorded: blank
    tolerance  greatest difference over the greatest magnitude of an output; 0 means equal bits
    floats     the type that outputs are compared as when there is a tolerance
    """

    name: str
    ptx: str
    threads: int
    inputs: tuple[NDArray[Any], ...]
    outputs: tuple[NDArray[Any], ...]
    maps: tuple[MapOf, ...] = ()
    tolerance: float = 0.0
    floats: str = "float32"

    def blank(self) -> tuple[NDArray[Any], ...]:
        """What the outputs hold before a run."""
        return tuple(blank(a.shape, a.dtype) for a in self.outputs)

    def with_outputs(self, outputs: tuple[NDArray[Any], ...]) -> Case:
        """The same case with what a run left in its outputs."""
        return replace(self, outputs=outputs)

    def difference(self, outputs: tuple[NDArray[Any], ...]) -> float:
        """How far other outputs are from this case's, on the scale of `tolerance`."""
        worst = 0.0
        for ours, theirs in zip(self.outputs, outputs, strict=True):
            if self.tolerance == 0:
                worst = max(worst, float(not np.array_equal(ours, theirs)))
                continue
            a = ours.view(self.floats).astype(np.float64)
            b = theirs.view(self.floats).astype(np.float64)
            finite = np.isfinite(a)
            if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(
                a[~finite], b[~finite], equal_nan=True
            ):
                return float("inf")
            scale = np.abs(a[finite]).max(initial=1e-30)
            worst = max(worst, np.abs(a[finite] - b[finite]).max(initial=0.0) / scale)
        return worst


def blank(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array of bytes that no result is likely to be full of."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.full(size, BLANK, np.uint8).view(dtype).reshape(shape)


def dumps(device: str, date: str, cases: list[Case]) -> str:
    """The text of a recording."""
    shared: dict[str, Any] = {}
    rows = [_to_json(case, shared) for case in cases]
    record = {"version": VERSION, "device": device, "date": date, "shared": shared, "cases": rows}
    return json.dumps(record, indent=1)


def loads(text: str) -> tuple[str, list[Case]]:
    """The device and the cases of a recording; ValueError if it is of another version."""
    record = json.loads(text)
    if record["version"] != VERSION:
        raise ValueError(f"a recording of version {record['version']}, this reads {VERSION}")
    return record["device"], [_from_json(case, record["shared"]) for case in record["cases"]]


def _to_json(case: Case, shared: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: getattr(case, name) for name in ("name", "threads", "tolerance", "floats")},
        "ptx": _share(case.ptx, shared),
        "maps": [vars(m) for m in case.maps],
        "inputs": [_share(_packed(a), shared) for a in case.inputs],
        "outputs": [_share(_packed(a), shared) for a in case.outputs],
    }


def _share(value: Any, shared: dict[str, Any]) -> str:
    key = hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
    shared[key] = value
    return key


def _from_json(record: dict[str, Any], shared: dict[str, Any]) -> Case:
    maps = tuple(map(_map_from_json, record["maps"]))
    arrays = {k: tuple(_unpacked(shared[i]) for i in record[k]) for k in ("inputs", "outputs")}
    return Case(**{**record, "ptx": shared[record["ptx"]], "maps": maps, **arrays})


def _map_from_json(record: dict[str, Any]) -> MapOf:
    fields: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in record.items()
    }
    return MapOf(**fields)


def _packed(array: NDArray[Any]) -> dict[str, Any]:
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9))
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": data.decode("ascii")}


def _unpacked(record: dict[str, Any]) -> NDArray[Any]:
    data = zlib.decompress(base64.b64decode(record["data"]))
    return np.frombuffer(data, record["dtype"]).reshape(record["shape"]).copy()
