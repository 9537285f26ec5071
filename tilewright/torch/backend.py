"""The backend of ``torch.compile``: graphs in, compiled forward and backward programs out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import fx
from torch._dynamo.backends.common import aot_autograd

from tilewright.compiler.collector import collector_at_rest
from tilewright.torch.builds import built, program_of
from tilewright.torch.decompositions import decompositions
from tilewright.torch.frames import watch
from tilewright.torch.instead import answers_for, traced_for_us
from tilewright.torch.kept import Kept, caching, keeping
from tilewright.torch.options import Options, read_options
from tilewright.torch.packed_attention import write_out_attention
from tilewright.torch.partition import partition
from tilewright.torch.recipe import Recipe
from tilewright.torch.records import Region, region_of
from tilewright.torch.recurrent import take_apart
from tilewright.torch.sized import SizedRecipe, reloaded, sized, symbols_of
from tilewright.torch.tracing import collector_rests_for, trace_for

_region: ContextVar[Region] = ContextVar("tilewright_region")
"""What is being compiled, for programs that come out of PyTorch's cache meanwhile."""


def backend(
    module: fx.GraphModule, example_inputs: Sequence[Any], *, options: Any = None, **rest: Any
) -> Callable[..., Any]:
    """``torch.compile(model, backend="tilewright")``.

    ``options`` as in :class:`~tilewright.torch.options.Options`. Raises ``UserError`` for an option
    or value that does not exist. Operators on which tilewright itself fails run in PyTorch after a
    :class:`~tilewright.torch.faults.BackendWarning`; with ``fallback=False`` that is a
    ``CompilerBug``.
    """
    chosen = read_options(options, rest)
    take_apart(module)
    write_out_attention(module)
    region = region_of(module, example_inputs)
    compilers = {
        kind: keeping(functools.partial(_compile, options=chosen, region=region, kind=kind))
        for kind in ("forward", "backward", "inference")
    }
    token = _region.set(region)
    try:
        with caching(chosen), chosen.keeping(), collector_at_rest(), traced_for_us():
            return aot_autograd(  # type: ignore[no-any-return]
                fw_compiler=compilers["forward"],
                bw_compiler=compilers["backward"],
                inference_compiler=compilers["inference"],
                partition_fn=partition,
                decompositions=decompositions(),
                keep_inference_input_mutations=True,
            )(module, example_inputs)
    finally:
        _region.reset(token)


trace_for(backend)
watch(backend)
collector_rests_for(backend)
answers_for(backend)


def _compile(
    module: fx.GraphModule, example_inputs: Sequence[Any], *, options: Options, region: Region,
    kind: str,
) -> Kept:
    """One program: of a forward, a backward, or a graph without gradients."""
    found = region.record(kind)
    if kind == "forward":
        _keep_what_is_saved()
    given = module.graph.find_nodes(op="placeholder")
    cotangents = [i for i, n in enumerate(given) if n.name.startswith("tangents_")]
    if symbols_of(module):
        made = sized(module, options, found)
        return Kept(made, made.recipe, options, kind, _reload, cotangents)
    run, recipe = built(module, {}, options, found)
    return Kept(run, lambda: recipe, options, kind, _reload, cotangents)


def _keep_what_is_saved() -> None:
    """Tell PyTorch that the backward program leaves saved tensors as they are.

    Otherwise it refuses ``retain_graph=True``, which other backends' programs do not bear.
    """
    metadata = getattr(torch._guards.TracingContext.try_get(), "fw_metadata", None)
    places = getattr(metadata, "bw_donated_idxs", None)
    if isinstance(places, list):
        places.clear()  # of all copies of the metadata


def _reload(recipe: Recipe | SizedRecipe, options: Options, kind: str) -> Callable[..., Any]:
    """The program of a recipe that PyTorch's cache kept."""
    found = _region.get().record(kind)
    if isinstance(recipe, SizedRecipe):
        return reloaded(recipe, options, found)
    return program_of(recipe, options, found)
