"""What a new analysis hands back: numbers in a checked form, and nothing else."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lightning_ifa.errors import UndecidableError
from lightning_ifa.text import keep_legal_xml

LONGEST = 1_000_000
"""Bytes of a measurement; some hundred numbers take a hundredth of it."""

Key = Annotated[str, Field(pattern=r"^ifa/[\w.\- :/]+$", max_length=250)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[\w.\-+]*$", max_length=250)]


class Measurement(BaseModel):
    """The numbers of one analysis.

    Attributes:
        metrics: Key to finite number.
        digest: Digest of the validation data.
        layer: Name of the target layer.
        method: Name of the CAM method.
        version: Version of this package.
        weights: Digest of the weights.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    metrics: Annotated[dict[Key, Number], Field(max_length=5_000)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    layer: Name
    method: Name
    version: Name
    weights: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


def parse_measurement(answer: bytes, code: int) -> Measurement:
    """Read the answer of an analysis that ended.

    Args:
        answer: All that it wrote.
        code: Its exit status; negative for a signal.

    Raises:
        UndecidableError: It did not end well, or the answer is anything but one measurement.
    """
    try:
        content = _strict_json(answer)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and set(content) == {"error"} and isinstance(content["error"], str):
        raise UndecidableError(f"the new analysis failed: {keep_legal_xml(content['error'][:1000])}")
    if code != 0:
        raise UndecidableError(
            f"the new analysis {f'was ended by signal {-code}' if code < 0 else f'ended with {code}'}"
        )
    try:
        return Measurement.model_validate(content)
    except ValidationError as error:
        what = "gave no answer" if not answer else "gave no measurement"
        where = ".".join(map(str, error.errors()[0]["loc"])) if answer else ""
        raise UndecidableError(
            f"the new analysis {what}" + (f": {keep_legal_xml(where[:60])}" if where else "")
        ) from None


def _strict_json(text: bytes) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key given twice")
        return found

    return json.loads(text.decode("utf-8"), parse_constant=refuse, object_pairs_hook=once)
