"""Programs that PyTorch's AOTAutograd cache keeps, so that another process need not trace again.

PyTorch's own cache (``torch._functorch.config.enable_autograd_cache``, in its cache folder) maps
what Dynamo captured to the forward and backward programs. What it keeps of ours is the recipe; its
machine code comes from our own cache.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch._functorch._aot_autograd.autograd_cache import BypassAOTAutogradCache
from torch._functorch._aot_autograd.schemas import SerializableAOTDispatchCompiler
from torch._inductor import codecache
from torch._inductor.output_code import OutputCode

import tilewright
from tilewright.torch.batched import is_batched, one_by_one
from tilewright.torch.options import Options
from tilewright.torch.recipe import Recipe
from tilewright.torch.sized import SizedRecipe

Kind = Recipe | SizedRecipe
Build = Callable[[Kind, Options, str], Callable[[list[Any]], list[Any]]]

_caching: ContextVar[bool] = ContextVar("tilewright_caching", default=False)
"""Whether PyTorch's cache is being asked for a program of ours."""


class Kept(OutputCode):
    """A program, and what gives the recipe that it can be built from again.

    Where that is None the program is not kept. ``cotangents`` are the inputs that may be batches.
    """

    def __init__(
        self, run: Callable[[list[Any]], list[Any]], give: Callable[[], Kind | None],
        options: Options, kind: str, build: Build, cotangents: Sequence[int] = (),
    ) -> None:
        self._boxed_call = True
        self.cotangents = cotangents
        self.run: Any = run
        self.give: Any = give
        self.recipe: Kind | None = None
        self.options, self.kind, self.build = options, kind, build

    def __call__(self, inputs: list[Any]) -> Any:
        for i in self.cotangents:
            if is_batched(inputs[i]):
                return one_by_one(self.run, inputs)
        return self.run(inputs)

    def prepare_for_serialization(self) -> None:
        """Called on a copy: leave out what another process cannot use."""
        try:
            self.recipe = self.give()
            pickle.dumps(self.recipe)
        except Exception as error:  # a graph module or a function among a call's arguments
            raise BypassAOTAutogradCache(f"a tilewright program: {error}") from error
        if self.recipe is None:
            raise BypassAOTAutogradCache("a tilewright program that is compiled for numbers")
        self.run = self.give = None

    def post_compile(self, example_inputs: Any, constants: Any, graph_kwargs: Any) -> None:
        """Called after loading: make the program."""
        if self.run is None and self.recipe is not None:
            self.run = self.build(self.recipe, self.options, self.kind)
            self.give = functools.partial(_same, self.recipe)

    def set_triton_bundle(self, triton_bundle: Any) -> None:
        """There is no Triton here."""

    def __copy__(self) -> Kept:
        made = Kept(
            self.run, self.give, self.options, self.kind, self.build, self.cotangents)
        made._time_taken_ns = self._time_taken_ns
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Kept:
        return copy.copy(self)


def _same(recipe: Kind) -> Kind:
    return recipe


def keeping(function: Callable[[fx.GraphModule, Sequence[Any]], Kept]) -> Any:
    """A compiler whose results the cache may keep."""
    return SerializableAOTDispatchCompiler(Kept, function)


@functools.cache
def _version() -> str:
    """A digest of the source files of this package: the cache must not outlive a change of them."""
    digest = hashlib.blake2b(digest_size=16)
    root = Path(tilewright.__file__).parent
    for path in sorted(root.rglob("*.py")):
        state = path.stat()
        digest.update(f"{path.relative_to(root)} {state.st_size} {state.st_mtime_ns}".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def caching(options: Options) -> Iterator[None]:
    """The settings under which PyTorch looks programs up and keeps them.

    The backward program is compiled together with the forward one, since both are one entry.
    """
    tag = f"{torch.compiler.config.cache_key_tag} tilewright {_version()} {options}"
    with (
        torch._functorch.config.patch(
            bundled_autograd_cache=True, force_non_lazy_backward_lowering=True,
            unlift_effect_tokens=True,  # else kept programs are called without their tokens
        ),
        torch.compiler.config.patch(cache_key_tag=tag),
    ):
        token = _caching.set(True)
        try:
            yield
        finally:
            _caching.reset(token)


def _leave_inductor_unloaded() -> None:
    """Have keys of our programs made without Inductor's code generators.

    A key takes in the passes that are registered with those, for which they are all imported: half
    a second in every process. They do not touch our programs.
    """
    register = getattr(codecache, "init_backend_registration", None)
    if register is None:
        return

    @functools.wraps(register)
    def unless_ours() -> None:
        if not _caching.get():
            register()
    codecache.init_backend_registration = unless_ours


_leave_inductor_unloaded()
