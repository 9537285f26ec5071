"""Every node that must live in memory belongs to one group; each group becomes one kernel.

    m = reduce_max(x); e = exp(x - m); s = sum(e); y = e / s
->  group rows: anchors m, s; stores y

Reductions over the same axes of the same shape share a kernel; elementwise work joins the kernel
that computes its latest operand, if it walks the same elements; the rest is computed where it is
read, or, if that would repeat costly work, stored by a pointwise group.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from tilewright.compiler.launches import launch_order
from tilewright.compiler.schedules.cluster import SUMS, Anchors, Cluster, clusters_of, is_anchor
from tilewright.compiler.schedules.group import Group
from tilewright.compiler.schedules.remade import Whole, whole
from tilewright.compiler.target import Target
from tilewright.compiler.topology import Cycles, ordered
from tilewright.ir.graph import Graph, Node, users
from tilewright.ir.hints import estimate
from tilewright.ir.types import size_of

CHEAP_FLOPS = 4
"""A value that costs no more than this per element is computed again rather than stored."""

SEARCH_FLOPS = 4
"""A step of a binary search."""

MOST_MERGED = 1 << 15
"""Elements up to which strangers share a pointwise kernel, to save launches."""

MOST_STORES = 16
"""Results of one pointwise kernel."""

MOST_PARTS = 3
"""Parts of a concat that is computed in place of a load, but in a pointwise kernel."""

MANY_WINDOWS, FEW_PRODUCTS = 3, 16
"""A padded operand is stored if each element is in more windows, and in fewer products in each."""

MOST_NODES = 200
"""The largest expression that is computed in place of a load."""


def fuse(graph: Graph, target: Target | None = None) -> list[Group]:
    """The groups of a graph in an order in which they can run."""
    apart: frozenset[Node] = frozenset()
    while True:
        try:
            return _Fusion(graph, apart, target).groups()
        except Cycles as error:
            # Something that is stored stands between two reductions of one kernel: they part.
            cycle = {a for c in error.members if len(c.anchors) > 1 for a in c.anchors}
            if cycle <= apart:
                raise
            apart |= cycle


def _in_order(
    anchors: Anchors, apart: frozenset[Node], whole: Whole
) -> list[Cluster]:
    """The clusters of reductions, those after others that rest on them."""
    clusters = clusters_of(anchors, apart, whole)
    of = {a: c for c in clusters for a in c.anchors}
    before = {}
    for c in clusters:
        near = 0
        for a in c.anchors:
            near |= anchors.near[a]
        before[c] = [of[a] for a in anchors.members(near & ~c.mask)]
    return ordered(before)


def _work(node: Node) -> tuple[int, int, bool]:
    """(operations per element, elements, whether it is given or the heart of a kernel)."""
    counted = node.op.kind == "elementwise" and node.op.name not in ("cast", "bitcast")
    if node.op.kind == "search":
        steps = estimate(node.inputs[0].shape[-1]).bit_length()
        return SEARCH_FLOPS * steps, estimate(node.type.size), False
    ends = node.op.kind == "source" or is_anchor(node)
    return node.op.flops if counted else 0, estimate(node.type.size), ends


def _parts(nodes: Iterable[Node]) -> dict[Node, int]:
    """How many parts each value is put together from, as far as no kernel stands between."""
    result: dict[Node, int] = {}
    for node in nodes:
        parts = [result[n] for n in node.inputs if n.op.name != "full"]
        if is_anchor(node) or node.op.kind not in ("view", "elementwise") or not parts:
            result[node] = 1
        else:
            found = sum(parts) if node.op.name == "concat" else max(parts)
            result[node] = min(found, MOST_NODES)
    return result


class _Fusion:
    """Decides where every node is computed, and which are stored."""

    def __init__(self, graph: Graph, apart: frozenset[Node], target: Target | None) -> None:
        self.graph = graph
        self.nodes = graph.nodes()
        self.users = users(graph)
        self.uses = {n: len(u) for n, u in self.users.items()}
        self.outputs = set(graph.outputs)
        self.on_gpu = target is not None and target.gpu is not None
        self.whole = whole(self.nodes, self.users, self.outputs, apart, target)
        self.inside, self.anew = self.whole.inside, self.whole.products
        held = {n for a in self.whole.attentions for n in a.anchors}
        self.clusters = _in_order(Anchors(self.nodes, self.anew - held), apart, self.whole)
        self.rank = {c: i for i, c in enumerate(self.clusters)}
        self.work = {n: _work(n) for n in self.nodes}
        self.parts = _parts(self.nodes)
        self.home: dict[Node, Cluster | None] = {}
        self._find_homes()
        self.alias = self._aliases()
        self.stored: set[Node] = set()
        self._choose_stored()

    # --- where nodes can be computed ----------------------------------------------------

    def _find_homes(self) -> None:
        """``home``: the cluster that can compute a node, the latest that it rests on."""
        for c in self.clusters:
            for a in c.anchors:
                self.home[a] = c
        last: dict[Node, int] = {}
        for node in self.nodes:
            rests = max((last[n] for n in node.inputs), default=-1)
            if node in self.home:
                last[node] = self.rank[self.home[node]]  # type: ignore[index]
                continue
            last[node] = rests
            latest = self.clusters[rests] if rests >= 0 else None
            held = any(self.home[n] is latest for n in node.inputs)
            fits = latest is not None and held and latest.fits(node)
            self.home[node] = latest if fits else None

    def _aliases(self) -> dict[Node, Node]:
        """Computed value -> the reshape of it that is a result and can take its buffer."""
        result: dict[Node, Node] = {}
        for node in self.graph.outputs:
            source = node
            while source.op.name == "reshape":
                source = source.inputs[0]
            computed = is_anchor(source) or source.op.kind == "elementwise"
            free = source not in self.outputs and source not in result
            if source is not node and computed and free:
                result[source] = node
        return result

    # --- what is stored -----------------------------------------------------------------

    def _choose_stored(self) -> None:
        places: dict[Node, set[object]] = {}
        reshaped = set(self.alias.values())
        for node in reversed(self.nodes):
            if node.op.name in ("input", "const"):
                continue
            where: set[object] = set()
            for user in self.users[node]:
                where |= self._place_of(user, places)
                if len(where) > 1:
                    break  # whether there are others than one is all that is asked
            places[node] = where
            if node in reshaped or node in self.inside:
                continue
            if node in self.outputs or node in self.alias or self._must_store(node, where):
                self.stored.add(node)

    def _place_of(self, user: Node, places: dict[Node, set[object]]) -> set[object]:
        """The kernels in which an operand of ``user`` is read."""
        home = self.home[user]
        if user in self.anew:
            return places[user] if home is None else {home} | places[user]
        if is_anchor(user):
            return {home}
        if user in self.stored:
            return {home if home is not None else user}
        return places[user]

    def _must_store(self, node: Node, where: set[object]) -> bool:
        home = self.home[node]
        if is_anchor(node):
            return bool(where - {home}) or node.op.kind == "index"
        if node.op.name == "pad":
            return not self.on_gpu and self._asked_more_than_used(node)
        if node.op.kind not in ("elementwise", "search"):
            return node.op.name == "concat" and (
                self._feeds_contraction(node) or self._asked_for(node, where))
        cost, size = self._cost(node)
        if size > MOST_NODES:
            return True
        if cost > 0 and (self._feeds_contraction(node) or self._searched(node)):
            return True
        cheap = cost <= CHEAP_FLOPS
        if home is not None and where - {home}:
            if self.on_gpu and _widened(node):
                # Its readers have less to read so.
                return False
            return not (cheap and home.family in SUMS)
        if not cheap and self._repeated(node):
            return True
        return len(where) > 1 and not cheap

    def _feeds_contraction(self, node: Node) -> bool:
        """Whether a contraction reads the node, perhaps through views."""
        for user in self.users[node]:
            if user.op.kind in ("contract", "grouped"):
                return True
            if user.op.kind == "view" and user not in self.stored and self._feeds_contraction(user):
                return True
        return False

    def _asked_more_than_used(self, node: Node) -> bool:
        """Whether a contraction of windows would ask of each element many times whether it is
        inside of what is padded, and make few products of it each time.
        """
        return any(
            window.op.name == "window" and _larger(window, MANY_WINDOWS, node)
            and any(user.op.kind == "contract" and _beside(user, window) <= FEW_PRODUCTS
                    for user in self._readers(window))
            for window in self.users[node])

    def _readers(self, node: Node) -> Iterator[Node]:
        """Who reads a node, perhaps through views."""
        for user in self.users[node]:
            yield user
            if user.op.kind == "view":
                yield from self._readers(user)

    def _asked_for(self, node: Node, where: set[object]) -> bool:
        """Whether a kernel that is not pointwise would ask of many parts which one an element is
        in; pointwise kernels go from part to part.
        """
        within = any(isinstance(place, Cluster) for place in where)
        return within and not self.on_gpu and self.parts[node] > MOST_PARTS

    def _searched(self, node: Node) -> bool:
        """Whether a binary search reads the node at places that depend on the data."""
        return any(
            user.op.kind == "search" and user.inputs[0] is node
            or user.op.kind == "view" and user not in self.stored and self._searched(user)
            for user in self.users[node])

    def _repeated(self, node: Node) -> bool:
        """Whether a view or a scatter makes readers compute each element several times."""
        for user in self.users[node]:
            if user.op.name == "broadcast" and _larger(user, 2, node):
                home = self.home[user]
                if home is None or home is not self.home[node]:
                    return True
            if user.op.name == "slice" and len(self.users[node]) > 1:
                return True
            if user.op.name == "put" and user.inputs[1] is node:
                # Every row before the indexed axis looks at all indices.
                return estimate(size_of(user.shape[:user.attrs.axis])) > 2
        return False

    def _cost(self, node: Node) -> tuple[float, int]:
        """(operations per element, nodes) of computing ``node`` from what is stored or given.

        What has fewer elements, such as a value per row, costs less per element.
        """
        seen: set[Node] = set()
        stack, total = [node], 0.0
        work, own = self.work, max(1, self.work[node][1])
        while stack and len(seen) <= MOST_NODES:
            n = stack.pop()
            if n in seen:
                continue
            flops, size, ends = work[n]
            if ends and n is not node:
                continue
            seen.add(n)
            if flops:
                total += flops if size >= own else flops * size / own
            stack += n.inputs
        return total, len(seen)

    # --- groups -------------------------------------------------------------------------

    def groups(self) -> list[Group]:
        """The groups, in order."""
        homes = {n: n for n in self.nodes if n.op.name in ("input", "const")}
        homes |= {n: self.alias.get(n, n) for n in self.stored}
        homes |= {target: target for target in self.alias.values()}
        made: dict[object, Group] = {}
        for c in self.clusters:
            made[c] = Group(c.family, c.shape, c.axes, list(c.anchors), [], homes, self.uses)
        for node in self.nodes:
            if node not in self.stored:
                continue
            key: object = self.home[node] or node
            if key is node:
                made[key] = Group("pointwise", tuple(node.shape), (), [], [], homes, self.uses)
            made[key].stores.append((node, self.alias.get(node, node)))
        groups = _merged([g for g in made.values() if g.stores])
        groups = [g for g in groups if any(target.type.size for _, target in g.stores)]
        return _in_turn(groups, self.outputs)


def _widened(node: Node) -> bool:
    """Whether a node is a number of fewer bytes in a longer type."""
    return node.op.name == "cast" and node.inputs[0].dtype.itemsize < node.dtype.itemsize


def _beside(contraction: Node, operand: Node) -> int:
    """Products that each element of one operand is in, by its size, of which views have one."""
    attrs, size = contraction.attrs, estimate(operand.type.size)
    sizes = dict(zip(attrs.lhs, contraction.inputs[0].shape, strict=True))
    sizes |= dict(zip(attrs.rhs, contraction.inputs[1].shape, strict=True))
    return estimate(size_of(tuple(sizes.values()))) // max(1, size)


def _larger(a: Node, times: int, b: Node) -> bool:
    """Whether a tensor has more elements than several of another."""
    return estimate(a.type.size) > times * estimate(b.type.size)


def _merged(groups: list[Group]) -> list[Group]:
    """Small pointwise groups of a kind as one, and those that read the same."""
    maker = {target: g for g in groups for _, target in g.stores}
    level: dict[Group, int] = {}
    reads = {g: _reads(g) for g in groups}
    for g in ordered({g: _makers(reads[g], maker, g) for g in groups}):
        level[g] = 1 + max((level[b] for b in _makers(reads[g], maker, g)), default=0)
    result: list[Group] = []
    pointwise: dict[object, list[Group]] = {}
    for g in sorted(groups, key=lambda g: level[g]):
        if g.family != "pointwise":
            result.append(g)
            continue
        others = pointwise.setdefault((level[g], g.shape), [])
        small = estimate(size_of(g.shape)) <= MOST_MERGED
        other = next((
            o for o in others
            if len(o.stores) < MOST_STORES and (small or not reads[o].isdisjoint(reads[g]))), None)
        if other is not None:
            other.stores += g.stores
            reads[other] |= reads[g]
        else:
            others.append(g)
            result.append(g)
    return result


def _reads(group: Group) -> set[Node]:
    """The buffers that a group reads."""
    members = set(group.members(group.writer()))
    return {group.homes.get(n, n) for m in members for n in m.inputs if n not in members}


def _makers(reads: Iterable[Node], maker: Mapping[Node, Group], group: Group) -> set[Group]:
    return {maker[n] for n in reads if n in maker and maker[n] is not group}


def _in_turn(groups: list[Group], results: Collection[Node]) -> list[Group]:
    """The groups in an order that keeps little in memory between them."""
    maker = {target: g for g in groups for _, target in g.stores}
    reads = {g: _reads(g) for g in groups}
    before = {g: _makers(reads[g], maker, g) for g in groups}
    makes = {g: [target for _, target in g.stores] for g in groups}
    size = {
        n: estimate(size_of(n.shape)) * n.dtype.itemsize for n in maker if n not in results}
    return launch_order(before, reads, makes, size)
