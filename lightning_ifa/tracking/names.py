"""Make names from users fit for MLflow keys and for paths."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

LONGEST = 60


def slug(name: str) -> str:
    """Turn any text into a short name that is safe as a path segment and as part of an MLflow key.

    Letters, digits, ``_`` and ``-`` stay, and single dots inside; anything else becomes ``_``. Where that loses
    something, a hash of the original is added, so that different names stay different.

    >>> slug("case-17.png"), slug("../../x")
    ('case-17.png', 'x-9cdf6a50')
    """
    plain = re.sub(r"\.{2,}", "_", re.sub(r"[^a-zA-Z0-9_.-]+", "_", name)).strip("._-")
    if plain and plain == name and len(plain) <= LONGEST:
        return plain
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain[:LONGEST]}-{mark}" if plain else mark


def key_at(prefix: str, key: str) -> str:
    """Give the key of a metric or image under a prefix, which names a further layer or validation loader.

    >>> key_at("dataloader_1", "ifa/outliers/score"), key_at("", "ifa/outliers/score")
    ('ifa/dataloader_1/outliers/score', 'ifa/outliers/score')
    """
    return f"ifa/{prefix}/{key.removeprefix('ifa/')}" if prefix else key


def metrics_at(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Give metrics the keys that they are logged under; see ``key_at``."""
    return {key_at(prefix, key): value for key, value in metrics.items()}


def is_server(uri: str) -> bool:
    """Whether the address of a store is a server's, and not a file's or a data base's.

    >>> is_server("https://host:5000"), is_server("sqlite:///mlflow.db")
    (True, False)
    """
    return uri.startswith(("http://", "https://"))


def without_secret(uri: str) -> str:
    """Remove user name and password from a URI, for files and messages.

    >>> without_secret("https://me:secret@host:5000/x")
    'https://host:5000/x'
    """
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def hide_secrets(text: str) -> str:
    """Remove user names and passwords from the URIs in a text, such as a library's message.

    >>> hide_secrets("no answer from http://me:secret@host:5000/api")
    'no answer from http://host:5000/api'
    """
    return re.sub(r"(?<=://)[^/\s]*@", "", text)
