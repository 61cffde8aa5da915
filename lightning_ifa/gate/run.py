"""The gate: reads the metrics, decides, writes the verdict, and promotes."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from lightning_ifa.errors import IFAError, UndecidableError
from lightning_ifa.gate.decide import decide
from lightning_ifa.gate.model_metrics import ModelMetrics, find_model_metrics, find_obstacle, find_version, logged_model_id, subject
from lightning_ifa.gate.policy import Policy, load_policy
from lightning_ifa.gate.registry import alias_holder, hold_alias_lock, same_version, version_to_promote, write_verdict
from lightning_ifa.gate.verdict import Verdict
from lightning_ifa.tracking.store import default_store

log = logging.getLogger(__name__)

Reanalysis = Callable[[str], tuple[dict[str, float], str]]
"""Analyses the model at a URI anew and gives its metrics and the digest of the validation data."""


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
        The verdict. If it passed and ``promote`` was given, the alias has moved.

    Raises:
        PolicyError: The policy cannot be used.
        UndecidableError: The server is unreachable, the version unknown, the alias moved meanwhile, or the model
            cannot be analysed.
    """
    rules = policy if isinstance(policy, Policy) else load_policy(policy)
    if to and not promote:
        raise UndecidableError(f"a copy in {to} needs the alias that it shall hold: promote=")
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
            if promote and verdict.passed:
                alias.require(champion)
            itself = other is not None and other.model == candidate.model
            write_verdict(client, version, verdict, rewrite=not itself)
            if promote and verdict.passed:
                alias.promote(version, champion, verdict)
            return verdict
    except UndecidableError:
        raise
    except Exception as error:  # whatever a store, a server or a loaded model throws: no decision
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

    def promote(self, version: ModelVersion, champion: ModelVersion | None, verdict: Verdict) -> None:
        """Copy the version if the alias is another registered model's, and move the alias."""
        chosen = version_to_promote(self.client, version, self.name)
        if chosen is not version:
            own = subject(chosen, logged_model_id(self.client, chosen) or str(chosen.source))
            known = same_version(chosen, champion)
            write_verdict(self.client, chosen, replace(verdict, subject=own), rewrite=not known)
        if not same_version(chosen, champion):
            self.require(champion)
            self.client.set_registered_model_alias(self.name, self.alias, str(chosen.version))


def _reanalyze(
    client: MlflowClient, version: ModelVersion, policy: Policy, digest: str | None, reanalyze: Reanalysis | None
) -> ModelMetrics:
    if reanalyze is None:
        return find_model_metrics(client, version, policy.metrics, digest)
    model = logged_model_id(client, version) or str(version.source)
    metrics, seen = reanalyze(f"models:/{version.name}/{version.version}")
    return ModelMetrics(subject(version, model), model, metrics, seen, origin="a new analysis by the gate")
