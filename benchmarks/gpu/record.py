"""Record what a GPU does with the hard instructions of PTX, for the tests of the simulator.

    python benchmarks/gpu/record.py [--target cuda] [--only NAME ...] [--out FILE]

Runs the cases of ``instructions.py`` and writes what they left as one JSON file, by default into
``tests/ptxsim/recorded``, where ``tests/ptxsim/test_recorded.py`` replays every file that it finds.
Cases for an architecture that the device is not of are left out. ``--target sim`` records the
simulator itself: that shows that recording works, and says nothing of hardware.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(1, str(HERE))

import numpy as np  # noqa: E402
from instructions import all_cases  # noqa: E402

from tilewright.errors import TilewrightError  # noqa: E402
from tilewright.ptxsim.recording import KERNEL, Case, MapOf, dumps  # noqa: E402
from tilewright.ptxsim.tensormap import (  # noqa: E402
    DataType,
    OutOfBoundsFill,
    Swizzle,
    TensorMap,
)
from tilewright.runtime.gpu.driver import Driver  # noqa: E402
from tilewright.runtime.gpu.drivers import driver_named  # noqa: E402

RECORDED = HERE.parents[1] / "tests" / "ptxsim" / "recorded"


def fits(case: Case, capability: tuple[int, int]) -> bool:
    """Whether a device runs the PTX of a case: sm_90a is for 9.0 alone."""
    found = re.search(r"\.target sm_(\d+)(\d)(a?)", case.ptx)
    assert found is not None
    needed = int(found[1]), int(found[2])
    return capability == needed if found[3] else capability >= needed


def map_argument(view: MapOf, addresses: list[int], driver: Driver) -> bytes:
    """A tensor map of a case as the device wants it."""
    return driver.tensor_map(TensorMap(
        DataType[view.data_type], addresses[view.array], view.dims, view.strides, view.box,
        view.element_strides, swizzle=Swizzle[view.swizzle], fill=OutOfBoundsFill[view.fill]))


def run(case: Case, driver: Driver) -> tuple[np.ndarray, ...]:
    """What the device leaves in the outputs of a case."""
    outputs = case.blank()
    with driver.lock:
        addresses = [driver.allocate(a.nbytes) for a in (*case.inputs, *outputs)]
        try:
            for address, array in zip(addresses, (*case.inputs, *outputs), strict=True):
                driver.write(address, np.ascontiguousarray(array))
            maps = [map_argument(view, addresses, driver) for view in case.maps]
            driver.launch(driver.load(case.ptx), KERNEL, 1, case.threads, (*maps, *addresses))
            for address, array in zip(addresses[len(case.inputs) :], outputs, strict=True):
                driver.read(address, array)
        finally:
            for address in addresses:
                driver.free(address)
    return outputs


def recorded(cases: list[Case], driver: Driver) -> tuple[list[Case], str]:
    """The cases that a device ran, and what it said of one that failed: no other runs after it."""
    done = []
    for case in cases:
        try:
            done.append(case.with_outputs(run(case, driver)))
        except TilewrightError as error:
            return done, f"{case.name}: {error}"
    return done, ""


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description="Record instructions on a GPU.")
    parser.add_argument("--target", default="cuda", help="cuda, cuda:1, or sim")
    parser.add_argument("--only", nargs="*", help="cases whose names begin so")
    parser.add_argument("--out", type=Path, help="default tests/ptxsim/recorded/DEVICE.json")
    options = parser.parse_args()
    if options.target == "sim" and options.out is None:
        parser.error("--target sim records the simulator, not hardware: say --out FILE")
    try:
        driver: Any = driver_named(options.target)
    except TilewrightError as error:
        sys.exit(f"nothing was recorded, there is no GPU: {error}")
    title, prefixes = driver.properties.title, tuple(options.only or [""])
    chosen = [c for c in all_cases() if c.name.startswith(prefixes)]
    cases, failed = recorded([c for c in chosen if fits(c, driver.capability)], driver)
    if not cases:
        sys.exit("nothing was recorded: " + (failed or f"no case of {', '.join(prefixes)} is for "
                                             f"{title}"))
    out = options.out or RECORDED / f"{re.sub('[^a-z0-9]+', '-', title.lower())}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    out.write_text(dumps(title, date, cases))
    print(f"{len(cases)} of {len(chosen)} cases recorded on {title}, written to {out}")
    if failed:
        sys.exit(f"the device failed at {failed}")


if __name__ == "__main__":
    main()
