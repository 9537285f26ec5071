"""Architectures as data, and targets made of them."""

from __future__ import annotations

import pytest

from tilewright.codegen.gpu.architectures import (
    ARCHITECTURES,
    NEWEST_PTX,
    PTX_OF_DRIVER,
    TIERS,
    architecture,
    driver_of_ptx,
    gpu_target,
    of_capability,
    ptx_of_driver,
)
from tilewright.errors import UserError

BEST = {
    "sm_50": "ffma", "sm_61": "ffma", "sm_70": "wmma", "sm_72": "wmma", "sm_75": "mma",
    "sm_80": "async", "sm_86": "async", "sm_89": "async", "sm_90": "async", "sm_90a": "wgmma",
    "sm_100": "async", "sm_120": "async",
}


@pytest.mark.parametrize("name", BEST)
def test_tiers(name: str) -> None:
    assert architecture(name).tier == BEST[name]
    target = gpu_target(name)
    assert target.gpu is not None and target.gpu.tier == BEST[name]


def test_every_tier_has_an_architecture() -> None:
    assert {a.tier for a in ARCHITECTURES.values()} == {tier for tier, _ in TIERS}


def test_a_target_has_what_the_device_says() -> None:
    target = gpu_target("sm_90a", ptx=82, multiprocessors=78, l2=1 << 25, shared_most=200 << 10)
    gpu = target.gpu
    assert gpu is not None
    assert (gpu.multiprocessors, gpu.ptx, gpu.shared, gpu.shared_most) == (78, 82, 49152, 204800)
    assert (target.l2, target.cpu, target.fma, target.lanes(2)) == (1 << 25, "sm_90a", True, 8)
    assert target.name == "sm_90a" and target.triple == "nvptx64-nvidia-cuda"


@pytest.mark.parametrize("capability,name", [
    ((5, 0), "sm_50"), ((7, 5), "sm_75"), ((8, 6), "sm_86"), ((9, 0), "sm_90a"),
    ((12, 0), "sm_120"), ((11, 0), "sm_103"), ((15, 2), "sm_121"), ((8, 8), "sm_87"),
])
def test_devices_take_their_own_or_an_older_architecture(
    capability: tuple[int, int], name: str
) -> None:
    assert of_capability(*capability).name == name


@pytest.mark.parametrize("driver,ptx", [
    (5000, 0), (12000, 80), (12020, 82), (12060, 85), (13000, 90), (14000, NEWEST_PTX),
])
def test_drivers(driver: int, ptx: int) -> None:
    assert ptx_of_driver(driver) == ptx


def test_versions_of_drivers_rise() -> None:
    assert sorted(PTX_OF_DRIVER.values()) == list(PTX_OF_DRIVER.values())
    assert driver_of_ptx(80) == "12.0" and driver_of_ptx(62) == "9.2"


def test_unknown_architecture() -> None:
    with pytest.raises(UserError) as caught:
        gpu_target("sm_33")
    assert str(caught.value) == (
        "there is no GPU architecture 'sm_33'\n"
        f"  expected: {', '.join(ARCHITECTURES)}\n"
        "  got:      sm_33"
    )


def test_driver_that_does_not_know_the_architecture() -> None:
    with pytest.raises(UserError) as caught:
        gpu_target("sm_90a", ptx=75)
    assert str(caught.value) == (
        "the driver is too old for sm_90a\n"
        "  expected: one that reads PTX 8.0 (CUDA 12.0)\n"
        "  got:      PTX 7.5"
    )


def test_device_that_is_too_old() -> None:
    with pytest.raises(UserError) as caught:
        of_capability(3, 5)
    assert str(caught.value) == (
        "a GPU of compute capability 3.5 is too old\n"
        "  expected: 5.0 or newer\n"
        "  got:      3.5"
    )
