"""What the gate reads from and writes to the model registry."""

from __future__ import annotations

import hashlib
import os
import re
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
from lightning_ifa.gate.keys import families_of
from lightning_ifa.gate.model_metrics import logged_model_id, subject
from lightning_ifa.gate.render import markdown
from lightning_ifa.gate.verdict import Verdict
from lightning_ifa.text import escape_prose, shorten
from lightning_ifa.tracking.description import DESCRIPTION
from lightning_ifa.tracking.names import slug

VERDICT_TAG, POLICY_TAG, SUBJECT_TAG = "ifa.gate", "ifa.gate.policy", "ifa.gate.subject"
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
BEGIN, END = "IFA gate: ", "<!-- end of the gate's verdict -->"
_HEADLINE = re.compile(rf"(?m)^{re.escape(BEGIN)}(?:PASS|FAIL)\b[^\n]*$")
LONGEST_WAIT = 600.0

NOT_PROMOTED = "pass, not promoted"
"""What the tag says of a version that passed and is to be promoted, until its alias was seen at it: whoever finds it
runs the gate again. The states are: no verdict of its own, ``fail``, ``pass, not promoted``, ``pass``."""


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
    """Read the verdict on a version from its tags.

    Returns:
        ``"pass"``, ``"fail"``, or ``"pass, not promoted"`` where a promotion was begun and not seen to its end; None if
        there is no verdict, or it is on another subject: MLflow copies tags with a version.

    Raises:
        MlflowException: There is no such version, or no server.
    """
    found = client.get_model_version(name, version)
    model = logged_model_id(client, found) or str(found.source)
    return found.tags.get(VERDICT_TAG) if found.tags.get(SUBJECT_TAG) == subject(found, model) else None


def write_verdict(
    client: MlflowClient, version: ModelVersion, verdict: Verdict, rewrite: bool = True, promoting: bool = False
) -> None:
    """Write the verdict to its version: description, artifact, three tags; nothing where it is written already.

    Whoever reads in between never finds a pass that is not meant: a fail is written first, a pass last.

    Args:
        client: Client of the registry.
        version: The version.
        verdict: The verdict on this very version.
        rewrite: Whether to replace the description where the three tags stay the same. Not for the champion: judged
            again, it has no other version to be compared with, and its first verdict says more.
        promoting: Whether an alias is still to be moved: the tag then says so, until ``finish_promotion``.

    Raises:
        MlflowException: The server refused, or was not reached.
    """
    name, number = str(version.name), str(version.version)
    word = NOT_PROMOTED if promoting else verdict.word
    tags = {POLICY_TAG: verdict.policy, SUBJECT_TAG: verdict.subject, VERDICT_TAG: word}
    description = describe_version(version.description or "", verdict, _find_pages(client, version, verdict))
    if tags.items() <= version.tags.items() and (not rewrite or description == version.description):
        return
    if word != "pass":
        client.set_model_version_tag(name, number, VERDICT_TAG, word)
    _write_artifact(client, version, verdict)
    client.update_model_version(name, number, description)
    for key, value in tags.items():
        client.set_model_version_tag(name, number, key, value)


def finish_promotion(client: MlflowClient, version: ModelVersion, verdict: Verdict, rewrite: bool = True) -> None:
    """Let the tag of a version whose alias was seen at it say ``pass``; see ``write_verdict``."""
    begun = {POLICY_TAG: verdict.policy, SUBJECT_TAG: verdict.subject, VERDICT_TAG: NOT_PROMOTED}
    if begun.items() <= version.tags.items():
        client.set_model_version_tag(str(version.name), str(version.version), VERDICT_TAG, verdict.word)
    else:
        write_verdict(client, version, verdict, rewrite)


def move_alias(client: MlflowClient, name: str, alias: str, version: ModelVersion) -> None:
    """Move an alias to a version, and see it there: the answer to the request may be lost.

    Raises:
        UndecidableError: It is not there, or it is not known where it is.
    """
    problem: Exception | None = None
    try:
        client.set_registered_model_alias(name, alias, str(version.version))
    except (MlflowException, OSError) as error:
        problem = error
    try:
        holder = alias_holder(client, name, alias)
    except (MlflowException, OSError) as error:
        raise UndecidableError(
            f"it is not known whether the alias {alias} of {name} moved to version {version.version}, since the server "
            f"went away; run the gate again: {type(problem or error).__name__}"
        ) from error
    if not same_version(holder, version):
        where = f"at version {holder.version}" if holder else "nowhere"
        raise UndecidableError(
            f"passed, not promoted: the alias {alias} of {name} is {where}, not at version {version.version}; run the "
            f"gate again" + (f": {problem}" if problem else "")
        ) from problem


def _find_pages(client: MlflowClient, version: ModelVersion, verdict: Verdict) -> str:
    """Say what to try and where the report on a version's weights stands; nothing where that is not known."""
    try:
        run = client.get_run(str(version.run_id)) if version.run_id else None
        model = logged_model_id(client, version)
        words = client.get_logged_model(model).tags.get(DESCRIPTION, "") if model else ""
    except MlflowException:
        return ""
    lines = list_advice(words, verdict)
    if run is not None:
        page = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        lines.append(f"* What was found: [the run]({page}), [its report]({page}/artifacts/ifa_report.html)")
    return "\n".join(lines)


def list_advice(words: str, verdict: Verdict) -> list[str]:
    """List what a model's description says is to be tried about the families that failed, as Markdown.

    The description is anybody's to write, so that its words are taken as plain text.
    """
    failed = {family for check in verdict.failures for family in families_of(check.name)}
    parts = [part.partition("\n") for part in re.split(r"(?m)^## ", words)[1:]]
    found = {name.strip().lower(): _ADVICE.search(text) for name, _, text in parts}
    advice = {name: re.sub(r"\\([\W_])", r"\1", match[1]) for name, match in found.items() if match and name in failed}
    return [f"* To try, {name}: {escape_prose(shorten(text, LONGEST_ADVICE))}" for name, text in advice.items()]


_ADVICE = re.compile(r"(?m)^\* \*\*To try:\*\* (.+)$")
LONGEST_ADVICE = 300


def describe_version(description: str, verdict: Verdict, pages: str = "") -> str:
    """Put the verdict before what the user wrote, in place of an earlier verdict.

    Its first line is plain text, since lists show only the beginning; ``pages``, lines of advice and links, come next.
    Only a headline of ours with an end of ours is an earlier verdict; all other words stay.
    """
    end = description.find(END)
    begins = [found.start() for found in _HEADLINE.finditer(description, 0, max(end, 0))]
    before, after = (description[: begins[-1]], description[end + len(END) :]) if begins else ("", description)
    first, _, rest = markdown(verdict).partition("\n\n")
    words = "\n\n".join(filter(None, (first, pages, rest)))
    return f"{BEGIN}{words}\n\n{END}\n\n{before}{after.lstrip()}".rstrip() + "\n"


def list_versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """List the versions of a registered model, whatever signs its name has.

    Raises:
        MlflowException: The server refused, or was not reached.
    """
    quote = "'" if "'" not in name else '"'
    wanted = None if {"'", '"'} <= set(name) else f"name={quote}{name}{quote}"
    found: list[ModelVersion] = []
    token: str | None = None
    while token != "":
        page = client.search_model_versions(wanted, page_token=token)
        found += [version for version in page if version.name == name]
        token = page.token or ""
    return found


def find_copy(client: MlflowClient, version: ModelVersion, to: str) -> ModelVersion | None:
    """Find the version that would hold the alias: itself, or its oldest copy in the protected registered model.

    Raises:
        MlflowException: The server refused, or was not reached.
    """
    if to == version.name:
        return version
    source = f"models:/{version.name}/{version.version}"
    copies = [found for found in list_versions(client, to) if found.source == source]
    oldest = min(copies, key=lambda copy: int(copy.version), default=None)
    return client.get_model_version(to, str(oldest.version)) if oldest else None


def copy_version(client: MlflowClient, version: ModelVersion, to: str) -> ModelVersion:
    """Copy a version to the protected registered model, once, also where the answer to the request is lost.

    Raises:
        MlflowException: The protected model does not exist, or may not be written; or the server went away.
    """
    try:
        with _no_retries():
            return client.copy_model_version(f"models:/{version.name}/{version.version}", to)
    except (MlflowException, OSError):
        made = find_copy(client, version, to)
        if made is None:
            raise
        return made


@contextmanager
def _no_retries() -> Iterator[None]:
    """Have MLflow's client send each request once: sent again after a lost answer, a copy would be made twice."""
    before = os.environ.get(_RETRIES)
    os.environ[_RETRIES] = "0"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_RETRIES, None)
        else:
            os.environ[_RETRIES] = before


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
