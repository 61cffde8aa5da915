"""Walk through the graph that autograd has recorded."""

from __future__ import annotations

from collections.abc import Collection

from torch.autograd.graph import Node


def list_inputs_first(start: Node | None, ends: Collection[Node] = ()) -> list[Node]:
    """List the nodes that a backward pass from ``start`` comes to, each after those it gets its inputs from.

    Args:
        start: Node to begin at; None, as of a tensor without a graph, has nothing behind it.
        ends: Nodes to stop at; they are not listed.
    """
    order: list[Node] = []
    seen: set[Node] = set(ends)
    stack = [] if start is None else [(start, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((source, False) for source, _ in node.next_functions if source is not None)
    return order
