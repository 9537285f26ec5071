"""What importing tilewright loads, and when."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tilewright as tw

ROOT = Path(__file__).parents[2]
HEAVY = ("llvmlite", "networkx", "optree", "ml_dtypes")


def loaded(statement: str) -> set[str]:
    """The heavy packages that a fresh Python has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(done.stdout.split())


def test_importing_tilewright_loads_nothing_heavy() -> None:
    assert loaded("import tilewright") == set()


DECORATED = "import tilewright as tw\n@tw.jit\ndef f(x): return x + 1\n"


def test_decorating_a_function_loads_the_compiler_in_the_background() -> None:
    found = loaded(DECORATED + "from tilewright.frontend import warm\nwarm.finish()")
    assert "llvmlite" in found
    assert "networkx" not in found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_process_can_compile_at_once() -> None:
    code = DECORATED + (
        "import os, numpy as np\n"
        "child = os.fork()\n"
        "if not child: os._exit(int(f(np.float32(2))))\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), f(np.float32(4)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.split() == ["3", "5.0"], done.stderr


def test_a_function_can_be_compiled_while_the_interpreter_ends() -> None:
    end = "import atexit, numpy\natexit.register(lambda: print(f(numpy.ones(2))))"
    code = DECORATED + end
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[2. 2.]\n", done.stderr


def test_without_the_assembler_the_call_fails_not_the_decorator() -> None:
    code = f"import sys\nsys.modules['llvmlite'] = None\n{DECORATED}print('decorated')\nf(1.0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["decorated"]
    assert "ModuleNotFoundError" in done.stderr.splitlines()[-1]


HAS_TORCH = importlib.util.find_spec("torch") is not None
NAMES = [n for n in tw.__all__ if n != "__version__" and (HAS_TORCH or n != "torch")]


def test_without_pytorch_its_room_says_what_to_install() -> None:
    code = (
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
        "import tilewright as tw\n"
        "try: tw.torch\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == (
        "tilewright.torch needs PyTorch, which is not installed; "
        "to install it: pip install 'tilewright[torch]'\n"), done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_public_names_exist(name: str) -> None:
    value = getattr(tw, name)
    assert value.__doc__
    assert name in dir(tw)


def test_other_names_do_not() -> None:
    with pytest.raises(AttributeError, match="tilewright has no attribute 'grads'"):
        tw.grads  # noqa: B018
