"""The default number of threads."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tilewright.runtime.cores import available_cores

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux'")


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_affinity_mask(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == 8


@pytest.mark.parametrize("quota, cores", [
    ("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1),
    ("1600000 100000", 8), ("nonsense", 8),
])
def test_control_group_version_2(tmp_path: Path, quota: str, cores: int) -> None:
    files = {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": quota}
    assert available_cores(tree(tmp_path, files)) == cores


def test_the_tightest_of_the_groups_around(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "500000 100000",
        "sys/fs/cgroup/a/cpu.max": "300000 100000", "sys/fs/cgroup/cpu.max": "max 100000",
    }
    assert available_cores(tree(tmp_path, files)) == 3


def test_inside_a_container(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/host/path\n", "sys/fs/cgroup/cpu.max": "200000 100000"}
    assert available_cores(tree(tmp_path, files)) == 2


@pytest.mark.parametrize("quota, cores", [("400000", 4), ("-1", 8)])
def test_control_group_version_1(tmp_path: Path, quota: str, cores: int) -> None:
    base = "sys/fs/cgroup/cpu,cpuacct/box/"
    files = {
        "proc/self/cgroup": "3:memory:/box\n2:cpu,cpuacct:/box\n",
        base + "cpu.cfs_quota_us": quota, base + "cpu.cfs_period_us": "100000",
    }
    assert available_cores(tree(tmp_path, files)) == cores


def test_hardware_threads_of_one_core_count_once(tmp_path: Path) -> None:
    files = {
        f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}"
        for n in range(8)
    }
    assert available_cores(tree(tmp_path, files)) == 4
