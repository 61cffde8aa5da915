"""What the gate reads from and writes to the model registry."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from lightning_ifa.errors import IFAWarning, UndecidableError
from lightning_ifa.gate.model_metrics import logged_model_id, subject
from lightning_ifa.gate.render import markdown
from lightning_ifa.gate.verdict import Verdict
from lightning_ifa.tracking.description import split_at_section
from lightning_ifa.tracking.names import slug

VERDICT_TAG, POLICY_TAG, SUBJECT_TAG = "ifa.gate", "ifa.gate.policy", "ifa.gate.subject"
BEGIN, END = "IFA gate: ", "<!-- end of the gate's verdict -->"
LONGEST_WAIT = 600.0


@contextmanager
def hold_alias_lock(name: str, longest: float = LONGEST_WAIT) -> Iterator[None]:
    """Let one gate at a time work on a registered model; the lock holds on one machine, for one user.

    Args:
        name: Name of the registered model whose alias may move.
        longest: Seconds to wait for another gate.

    Raises:
        UndecidableError: The other gate did not finish in time.
    """
    mark = hashlib.sha256(name.encode()).hexdigest()[:16]
    user = os.getuid() if hasattr(os, "getuid") else "user"
    path = Path(tempfile.gettempdir()) / f"lightning-ifa-gate-{user}-{mark}.lock"
    try:
        with FileLock(path, timeout=longest):
            yield
    except Timeout as error:
        raise UndecidableError(f"another gate has been working on {name} for {longest:.0f} s ({path})") from error


def alias_holder(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """Look up the version that holds an alias; None if none does.

    Raises:
        MlflowException: The registered model does not exist, or the server refused or was not reached.
    """
    aliases = client.get_registered_model(name).aliases
    return client.get_model_version(name, aliases[alias]) if alias in aliases else None


def standing_verdict(client: MlflowClient, name: str, version: str) -> str | None:
    """Read the verdict on a version from its tags, ``"pass"`` or ``"fail"``.

    Returns:
        The verdict; None if there is none, or it is on another subject: MLflow copies tags with a version.

    Raises:
        MlflowException: There is no such version, or no server.
    """
    found = client.get_model_version(name, version)
    model = logged_model_id(client, found) or str(found.source)
    return found.tags.get(VERDICT_TAG) if found.tags.get(SUBJECT_TAG) == subject(found, model) else None


def write_verdict(client: MlflowClient, version: ModelVersion, verdict: Verdict, rewrite: bool = True) -> None:
    """Write the verdict to its version: description, artifact, three tags; nothing where it is written already.

    Whoever reads in between never finds a pass that is not meant: a fail is written first, a pass last.

    Args:
        client: Client of the registry.
        version: The version.
        verdict: The verdict on this very version.
        rewrite: Whether to replace the description where the three tags stay the same. Not for the champion: judged
            again, it has no other version to be compared with, and its first verdict says more.

    Raises:
        MlflowException: The server refused, or was not reached.
    """
    name, number = str(version.name), str(version.version)
    tags = {POLICY_TAG: verdict.policy, SUBJECT_TAG: verdict.subject, VERDICT_TAG: verdict.word}
    description = describe_version(version.description or "", verdict)
    written = tags.items() <= version.tags.items()
    if written and (not rewrite or description == version.description):
        return
    if not verdict.passed:
        client.set_model_version_tag(name, number, VERDICT_TAG, verdict.word)
    client.update_model_version(name, number, description)
    _write_artifact(client, version, verdict)
    for key, value in tags.items():
        client.set_model_version_tag(name, number, key, value)


def describe_version(description: str, verdict: Verdict) -> str:
    """Put the verdict before what the user wrote, in place of an earlier verdict.

    Its first line is plain text, since lists show only the beginning.
    """
    before, after = split_at_section(description, BEGIN, END) or ("", description)
    return f"{BEGIN}{markdown(verdict)}\n\n{END}\n\n{before}{after.lstrip()}".rstrip() + "\n"


def version_to_promote(client: MlflowClient, version: ModelVersion, to: str) -> ModelVersion:
    """Give the version that would hold the alias: itself, or its copy in the protected registered model.

    Raises:
        MlflowException: The protected model does not exist, or may not be written.
    """
    if to == version.name:
        return version
    source = f"models:/{version.name}/{version.version}"
    copies = [v for v in client.search_model_versions(f"name='{to}'") if v.source == source]
    return copies[0] if copies else client.copy_model_version(source, to)


def same_version(a: ModelVersion | None, b: ModelVersion | None) -> bool:
    """Whether two registry entries are the same one; two absent ones are."""
    return (a and (a.name, str(a.version))) == (b and (b.name, str(b.version)))


def _write_artifact(client: MlflowClient, version: ModelVersion, verdict: Verdict) -> None:
    """Log the verdict to the version's run, if the gate may write there: it may be allowed to read only."""
    if not version.run_id:
        return
    path = f"ifa/gate/{slug(str(version.name))}-v{version.version}.json"
    try:
        client.log_dict(version.run_id, verdict.to_dict(), path)
    except (MlflowException, OSError) as error:
        warnings.warn(f"the verdict was not stored as {path}: {type(error).__name__}", IFAWarning, stacklevel=2)
