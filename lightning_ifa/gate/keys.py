"""Names as the gate reads them: metric keys (place, family, number), aliases, registered models."""

from __future__ import annotations

import re

ALIASES = "expected letters, digits, _ and -, as in champion, but not latest or v1"


def family_keys(family: str) -> tuple[str, str]:
    """Give the keys of a family's score and health; without both, the family was not analysed.

    >>> family_keys("dataloader_1/overfitting")
    ('ifa/dataloader_1/overfitting/score', 'ifa/dataloader_1/health/overfitting')
    """
    place, _, name = family.rpartition("/")
    start = f"ifa/{place}" if place else "ifa"
    return f"{start}/{name}/score", f"{start}/health/{name}"


def unidentified_key(family: str) -> str:
    """Give the key that counts what is known to go with the class so closely that its use cannot be told.

    >>> unidentified_key("confounding")
    'ifa/confounding/unidentified'
    """
    return family_keys(family)[0].removesuffix("score") + "unidentified"


def families_of(metric: str) -> tuple[str, ...]:
    """Give the families that a key may belong to: where its place ends, only the numbers at hand can tell.

    >>> families_of("ifa/overfitting/z"), families_of("ifa/dataloader_1/health/outliers")
    (('overfitting',), ('dataloader_1/outliers',))
    >>> families_of("ifa/dataloader_1/overfitting/score")
    ('dataloader_1', 'dataloader_1/overfitting')
    """
    parts = metric.split("/")[1:]
    if "health" in parts[:-1]:
        at = parts.index("health")
        return ("/".join([*parts[:at], parts[at + 1]]),)
    return tuple("/".join(parts[:end]) for end in range(1, len(parts)))


def is_lower_better(metric: str) -> bool | None:
    """Whether a metric of this package improves as it falls; None where its key does not say.

    >>> is_lower_better("ifa/health/outliers"), is_lower_better("ifa/outliers/score"), is_lower_better("ifa/own/number")
    (False, True, None)
    """
    parts = metric.split("/")
    return False if "health" in parts[1:-1] else True if parts[-1] in ("score", "z") else None


def require_alias(alias: str) -> str:
    """Give an alias back that the registry takes.

    Raises:
        ValueError: It takes no such alias: letters, digits, ``_`` and ``-``, but neither ``latest`` nor ``v1``.
    """
    fits = len(alias) <= 255 and re.fullmatch(r"[\w\-]+", alias)
    if not fits or re.fullmatch(r"latest|v[0-9]+", alias, re.IGNORECASE):
        raise ValueError(f"{alias!r:.60} can be no alias; {ALIASES}")
    return alias


def require_model_name(name: str) -> str:
    """Give a registered model's name back that the registry takes.

    Raises:
        ValueError: It takes no such name: blank, or with ``/`` or ``:``.
    """
    if not name.strip() or {"/", ":"} & set(name):
        raise ValueError(f"{name!r:.60} can be no registered model; expected a name without / and :")
    return name
