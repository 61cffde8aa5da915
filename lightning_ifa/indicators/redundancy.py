"""Redundancy: could this layer be thinner?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_ifa.indicators.base import Explanation, Finding, Indicator, describe_certainty, undecided
from lightning_ifa.indicators.context import AnalysisContext
from lightning_ifa.statistics.channel_redundancy import (
    SAMPLES_A_CHANNEL,
    channel_correlation,
    channel_groups,
    component_variances,
    needed_channels,
    spectrum_numbers,
)
from lightning_ifa.statistics.significance import health
from lightning_ifa.text import join_sentences, join_words, shorten, start_sentence

SHARE_LIMIT = 0.7
"""Sound networks of few classes hold many true copies: up to 0.66 with two and three classes on real images, at
any epoch. With ten classes it was 0.01. To be without copies is not asked of a network, only to be mostly of use."""

FEWEST = 10


KINDS = {
    "dead_fraction": "{} do not vary",
    "duplicate_share": "{} repeat another",
    "dependent_share": "{} are linear mixes of others",
}


class Redundancy(Indicator):
    """The share of channels that could go; see ``redundancy``."""

    name = "redundancy"
    meaning = "share of channels that are dead, copies, or linear mixes of others"
    limit = SHARE_LIMIT

    def assess(self, context: AnalysisContext) -> Finding:
        """Judge the pooled activations of the validation split."""
        return redundancy(context.validation.activations, context.strata["validation"])

    def explain(self, finding: Finding, context: AnalysisContext) -> Explanation:
        """Count the channels of each kind."""
        if finding.undecided:
            return Explanation(finding.note)
        channels = context.validation.contributions.shape[1]
        counts = {name: round(finding.details.get(name, 0.0) * channels) for name in KINDS}
        spare = round(finding.score * channels)
        parts = [KINDS[name].format(count) for name, count in counts.items() if count]
        found = [
            f"{spare} of {channels} channels could go without loss (alarm above {finding.limit:.0%})"
            + (f": {join_words(parts)}." if parts else "."),
            shorten(start_sentence(finding.note), 200),
        ]
        advice = f"Make the layer thinner; about {channels - spare} channels would do."
        return Explanation(join_sentences(found), describe_certainty(finding), advice)

    def share_of(self, finding: Finding, context: AnalysisContext) -> int | None:
        """The number of channels: the score hardly depends on the samples, but differs between trainings."""
        return int(context.validation.activations.shape[1])


def redundancy(activations: NDArray[Any], labels: NDArray[np.int64] | None = None) -> Finding:
    """Judge how much of the layer could go without loss.

    Score: share of channels that are dead, copies (absolute correlation of at least 0.99, over all samples and
    within classes) or exact linear mixes of others, in [0, 1); 0.7 alarm. It is a fact about the samples, so it needs
    no null; sound networks of few classes hold copies as well, hence the limit (docs/indicators.md).

    What grows with width, and mostly echoes the number of classes, stands beside it and judges nothing:
    ``mergeable_share`` (groups at a correlation of 0.9), ``components_95`` / ``components_99`` (principal
    components that carry 95 % / 99 % of the activations' variance), ``participation_ratio``
    (``(sum v)^2 / sum v^2`` of the component variances v) and ``effective_rank`` (exponential of the entropy of
    their shares; Roy & Vetterli 2007, with variances in place of singular values, which needs fewer samples).

    Args:
        activations: ``(n, c)`` pooled activations.
        labels: ``(n,)`` class or target bin, or None.
    """
    n, channels = activations.shape
    if n < FEWEST or channels < 2:
        return undecided(f"{n} samples of {channels} channels; needed are {FEWEST} and 2")
    overall = channel_correlation(activations)
    needed = needed_channels(activations, labels, overall)
    groups, _ = channel_groups(activations, overall=overall)
    share = 1 - len(needed.kept) / channels
    details = {
        "duplicate_share": needed.duplicates / channels,
        "dependent_share": needed.dependent / channels,
        "dead_fraction": needed.dead / channels,
        "mergeable_share": 1 - len(np.unique(groups[groups >= 0])) / channels,
        **spectrum_numbers(component_variances(activations)),
    }
    too_few = n < SAMPLES_A_CHANNEL * (channels - needed.dead - needed.duplicates)
    note = f"{n} samples are too few to find linear mixes among {channels} channels" if too_few else ""
    return Finding(share, 0.0, health(share, SHARE_LIMIT), details, note)
