"""Reads YAML so that nothing in it is read otherwise than a person reads it, and knows the line of everything.

Faults name the place, never the content: whoever mistakes a file of secrets for a policy should not find them in a log.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lightning_ifa.errors import PolicyError

LARGEST_FILE, MOST_NODES, DEEPEST = 1_000_000, 10_000, 40
_PLAIN = "tag:yaml.org,2002:"
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_LONGEST_NUMBER = 40
_QUOTED = re.compile(r"'[^']{4,}'|\"[^\"]{4,}\"")
_NOT_DECIMAL = "this is no plain decimal number; YAML would read it in another base"

Fault = tuple[int, str]
"""A line, and what is wrong there."""


def read_yaml(path: str | os.PathLike[str]) -> tuple[yaml.Node | None, Any, list[Fault]]:
    """Read a small YAML file of plain values: text, decimal numbers, booleans, lists and mappings.

    Returns:
        The root node, for ``line_of``; the content, without the values at fault; the faults.

    Raises:
        PolicyError: The file cannot be read, is not YAML, or unfolds without end.
    """
    root, faults = _compose(path), list[Fault]()
    try:
        return root, None if root is None else _Reader(faults).read(root), faults
    except PolicyError as error:
        raise PolicyError(f"{path} is no gate policy:\n  {error}") from None


def line_of(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """Find the line of the deepest node on the way to a location; a missing key has the line of its parent."""
    line = node.start_mark.line + 1 if node else 1
    for part in location:
        child: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    line, child = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            child = node.value[part]
            line = child.start_mark.line + 1
        if child is None:
            break
        node = child
    return line


def _compose(path: str | os.PathLike[str]) -> yaml.Node | None:
    try:
        if not Path(path).is_file():
            raise PolicyError(f"{path} cannot be read: it is no file")
        with Path(path).open("rb") as file:
            start = file.read(LARGEST_FILE + 1)
        if len(start) > LARGEST_FILE:
            raise PolicyError(f"{path} cannot be read: it is larger than {LARGEST_FILE:,} bytes")
        text = start.decode("utf-8-sig")
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path} cannot be read: it is no text in UTF-8") from error
    except (OSError, ValueError) as error:
        raise PolicyError(f"{path} cannot be read: {error}") from error
    except RecursionError as error:
        raise PolicyError(f"{path} is no gate policy: it is nested too deeply") from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise PolicyError(f"{path}, line {line}: not YAML: {error.reason}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line_of = f", line {mark.line + 1}" if mark else ""
        problem = _QUOTED.sub("a name", str(getattr(error, "problem", "") or "no document"))
        raise PolicyError(f"{path}{line_of}: not YAML: {problem}") from error


class _Reader:
    """Makes plain values of nodes, and notes what YAML would read otherwise than a person."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults, self._open, self._nodes = faults, list[yaml.Node](), 0

    def read(self, node: yaml.Node) -> Any:
        """Convert a node and all below it.

        Raises:
            PolicyError: It contains itself, or unfolds to more than any policy.
        """
        self._nodes += 1
        if any(node is parent for parent in self._open):
            raise PolicyError(f"line {node.start_mark.line + 1}: an anchor that contains itself")
        if self._nodes > MOST_NODES or len(self._open) > DEEPEST:
            raise PolicyError(f"line {node.start_mark.line + 1}: more values, or deeper ones, than any policy has")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        self._open.append(node)
        try:
            if isinstance(node, yaml.SequenceNode) and node.tag == f"{_PLAIN}seq":
                return [self.read(value) for value in node.value]
            if isinstance(node, yaml.MappingNode) and node.tag == f"{_PLAIN}map":
                return dict(self._entries(node))
        finally:
            self._open.pop()
        return self._note(node, "a YAML tag has no place in a policy")

    def _entries(self, node: yaml.MappingNode) -> Iterator[tuple[str, Any]]:
        seen = set()
        for key, value in node.value:
            name = key.value
            if not isinstance(name, str) or key.tag != f"{_PLAIN}str":
                self._note(key, "this is no key; put it in quotes if it is meant")
                continue
            if name in seen:
                self._note(key, "a key that was given twice")
            seen.add(name)
            if value.tag == f"{_PLAIN}null":
                self._note(key, "its value is missing; leave the key out, or give one")
            else:
                yield name, self.read(value)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text, kind = node.value, node.tag.removeprefix(_PLAIN)
        if kind == "str":
            return text
        if kind == "bool":
            return yaml.SafeLoader.bool_values.get(text.lower(), text)
        if kind == "int":
            if _DECIMAL.fullmatch(text) and len(text) <= _LONGEST_NUMBER:
                return int(text)
            return self._note(node, _NOT_DECIMAL)
        if kind == "float":
            return self._float(node)
        return self._note(node, "this is neither text nor number; put it in quotes if it is meant as text")

    def _float(self, node: yaml.ScalarNode) -> Any:
        text = node.value
        if text.lower().lstrip("+-") in (".nan", ".inf"):
            return math.nan if text.lower().lstrip("+-")[1] == "n" else math.inf
        try:
            if ":" in text or "_" in text or len(text) > _LONGEST_NUMBER:
                raise ValueError
            value = float(text)
        except ValueError:
            return self._note(node, _NOT_DECIMAL)
        return value if math.isfinite(value) else self._note(node, "this number is not finite")

    def _note(self, node: yaml.Node, fault: str) -> None:
        self._faults.append((node.start_mark.line + 1, fault))
