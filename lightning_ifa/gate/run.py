"""The gate: reads the metrics, decides, writes the verdict, and promotes."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from lightning_ifa.errors import IFAError, UndecidableError
from lightning_ifa.gate.decide import decide
from lightning_ifa.gate.keys import require_alias, require_model_name
from lightning_ifa.gate.model_metrics import (
    ModelMetrics,
    find_model_metrics,
    find_obstacle,
    find_version,
    logged_model_id,
    subject,
    weights_problem,
)
from lightning_ifa.gate.policy import Policy, load_policy
from lightning_ifa.gate.registry import (
    alias_holder,
    copy_version,
    find_copy,
    finish_promotion,
    hold_alias_lock,
    move_alias,
    same_version,
    write_verdict,
)
from lightning_ifa.gate.verdict import Verdict
from lightning_ifa.tracking.store import default_store
from lightning_ifa.tracking.weights import WEIGHTS_TAG

log = logging.getLogger(__name__)

Reanalysis = Callable[[str], tuple[Mapping[str, float], str] | tuple[Mapping[str, float], str, Mapping[str, str]]]
"""Analyses the model at a URI anew and gives its metrics, the digest of the validation data and, where they are known,
the conditions of the analysis; see ``ModelMetrics``."""


def gate(
    model: str,
    policy: Policy | str | os.PathLike[str],
    *,
    promote: str | None = None,
    to: str | None = None,
    dry_run: bool = False,
    reanalyze: Reanalysis | None = None,
    tracking_uri: str | None = None,
) -> Verdict:
    """Judge a registered model version, write the verdict to it, and promote it if it passes.

    Args:
        model: Address of the version, ``models:/NAME/VERSION``.
        policy: A policy, or the path of its YAML file.
        promote: Alias to move to the version if it passes; its present holder is the champion.
        to: Protected registered model that a passing version is copied to; the alias is that model's.
        dry_run: Whether to write nothing to MLflow.
        reanalyze: Function that analyses a model anew, in place of the metrics that were logged with it, for
            candidate and champion alike.
        tracking_uri: Address of the MLflow store; by default MLflow's own.

    Returns:
        The verdict. If it passed and ``promote`` was given, the alias was seen at the version.

    Raises:
        PolicyError: The policy cannot be used.
        UndecidableError: The server is unreachable, the version or a name unknown, the alias moved meanwhile, or the
            model cannot be analysed. Where something was written before that, the message says it, and the next run
            completes it.
    """
    rules = policy if isinstance(policy, Policy) else load_policy(policy)
    _require_names(promote, to)
    try:
        client = MlflowClient(tracking_uri)
        version = find_version(client, model)
        alias = _Alias(client, to or str(version.name), promote or rules.champion.alias)
        with hold_alias_lock(alias.name), default_store(tracking_uri):
            champion = alias.holder()
            candidate = _reanalyze(client, version, rules, rules.dataset_digest, reanalyze)
            other = None
            if champion is not None:
                again = reanalyze if rules.compares else None
                other = _reanalyze(client, champion, rules, candidate.dataset_digest, again)
            verdict = decide(rules, candidate, other)
            if dry_run:
                return verdict
            itself = other is not None and other.model == candidate.model
            if promote and verdict.passed:
                alias.promote(version, champion, verdict, itself)
            else:
                write_verdict(client, version, verdict, rewrite=not itself)
            return verdict
    except UndecidableError:
        raise
    except (Exception, SystemExit) as error:  # whatever a store, a server or a loaded model throws: no decision
        log.debug("the gate could not decide", exc_info=True)
        reason = str(error) if isinstance(error, IFAError) else f"{type(error).__name__}: {error}"
        raise UndecidableError(re.sub(r"//[^/@\s]+@", "//", reason)) from error


@dataclass(frozen=True)
class _Alias:
    """The alias that a passing version is to hold."""

    client: MlflowClient
    name: str
    alias: str

    def holder(self) -> ModelVersion | None:
        return alias_holder(self.client, self.name, self.alias)

    def require(self, expected: ModelVersion | None) -> None:
        """Make sure that the alias has not moved since the decision.

        Raises:
            UndecidableError: It moved. The registry has no compare-and-swap, so this only narrows the gap.
        """
        if not same_version(self.holder(), expected):
            raise UndecidableError(f"the alias {self.alias} of {self.name} moved meanwhile; run the gate again")

    def promote(self, version: ModelVersion, champion: ModelVersion | None, verdict: Verdict, itself: bool) -> None:
        """Write the verdict, copy the version if the alias is another registered model's, and move the alias.

        Each version's tag says "pass, not promoted" from before the alias moves until it was seen at its place.
        """
        self.require(champion)
        chosen = find_copy(self.client, version, self.name)
        moves = chosen is None or not same_version(chosen, champion)
        if moves:
            write_verdict(self.client, version, verdict, not itself, promoting=True)
            chosen = chosen or copy_version(self.client, version, self.name)
        assert chosen is not None
        own = verdict
        if not same_version(chosen, version):
            model = logged_model_id(self.client, chosen) or str(chosen.source)
            own = replace(verdict, subject=subject(chosen, model))
            if moves:
                write_verdict(self.client, chosen, own, promoting=True)
        if moves:
            self.require(champion)
            move_alias(self.client, self.name, self.alias, chosen)
        self._finish(chosen, own, moves, itself)
        if not same_version(chosen, version):
            self._finish(version, verdict, moves, itself)

    def _finish(self, version: ModelVersion, verdict: Verdict, moved: bool, itself: bool) -> None:
        """Let the tag say "pass"; what failed here is made up for by the next run.

        Raises:
            UndecidableError: The server refused, or was not reached; the alias is at the version.
        """
        try:
            known = self.client.get_model_version(version.name, version.version) if moved else version
            finish_promotion(self.client, known, verdict, rewrite=moved or not itself)
        except (MlflowException, OSError) as error:
            raise UndecidableError(
                f"promoted: the alias {self.alias} of {self.name} is at the version that passed; but its verdict could "
                f"not be written to the end, run the gate again: {type(error).__name__}"
            ) from error


def _require_names(promote: str | None, to: str | None) -> None:
    try:
        if promote is not None:
            require_alias(promote)
        if to is not None:
            require_model_name(to)
    except ValueError as error:
        raise UndecidableError(str(error)) from None
    if to is not None and promote is None:
        raise UndecidableError(f"a copy in {to} needs the alias that it shall hold: promote=")


def _reanalyze(
    client: MlflowClient, version: ModelVersion, policy: Policy, digest: str | None, reanalyze: Reanalysis | None
) -> ModelMetrics:
    obstacle = find_obstacle(client, version)
    if reanalyze is None:
        return replace(find_model_metrics(client, version, policy.metrics, digest), obstacle=obstacle)
    model = logged_model_id(client, version) or str(version.source)
    metrics, seen, *conditions = reanalyze(f"models:/{version.name}/{version.version}")
    about = dict(conditions[0]) if conditions else {}
    obstacle = obstacle or _foreign_weights(client, model, about.pop("weights", ""))
    origin = "a new analysis by the gate"
    return ModelMetrics(subject(version, model), model, metrics, seen, None, origin, "", about, obstacle)


def _foreign_weights(client: MlflowClient, model: str, measured: str) -> str:
    """Say why a new analysis does not speak of a logged model's own weights; empty if it does, or if none are recorded.

    Its file is read as well: what was measured is told by a process that may have run the model's own code.
    """
    logged = client.get_logged_model(model) if model.startswith("m-") else None
    recorded = logged.tags.get(WEIGHTS_TAG) if logged else None
    if logged is None or not recorded:
        return ""
    if measured not in ("", recorded):
        return f"other weights were analysed than its tag {WEIGHTS_TAG} says"
    return weights_problem(client, logged)
