"""Tables of what has been judged: false alarms, what cannot be told, wrong labels, the gate."""

from __future__ import annotations

import pandas as pd

from benchmarks.planted.tables import to_markdown

PURPOSES = ["choose", "report", "untouched"]

OVERFITTED_GAP = 0.1
"""Accuracy on training samples above that on validation samples from which on an alarm of overfitting is a true one."""

CONFOUNDED = ("skin-3", "skin-7")
"""Tasks whose images hold a confounder that is known: nevi that were followed up come from another camera."""


def tables(rows: pd.DataFrame) -> str:
    """Write every table as Markdown."""
    sound, faulty = rows[rows["fault"] == ""], rows[rows["fault"] != ""]
    parts = [
        ("Sound networks: alarms, and clean samples flagged", alarms(sound, ["purpose", "task"])),
        ("The same by purpose", alarms(sound, ["purpose"])),
        ("False alarms, without tasks whose confounder is known", false_alarms(sound)),
        ("The gate's default policy on networks that are sound, last checkpoint on real data", sound_passed(sound)),
        ("Sound networks: share that cannot be told", undecided(sound)),
        ("Wrong labels", labels(rows[rows["planted"] > 0])),
        ("The gate's default policy, last checkpoint on real data: models passed", gate(sound, faulty)),
    ]
    return "\n\n".join(f"### {title}\n\n{to_markdown(table)}" for title, table in parts if len(table))


def alarms(sound: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Count alarms of each family, every checkpoint a row of its own.

    ``true overfitting`` are alarms of networks whose accuracy falls by ``OVERFITTED_GAP`` or more on new samples; the
    column ``overfitting`` leaves them out.
    """
    names = [name for name in sound if name.startswith("alarm ")]
    overfitted = sound["alarm overfitting"] & (sound["training"] - sound["accuracy"] >= OVERFITTED_GAP)
    sound = sound.assign(true=overfitted, **{"alarm overfitting": sound["alarm overfitting"] & ~overfitted})
    found = sound.groupby(keys, sort=False).agg(
        networks=("seed", lambda seeds: len(set(zip(sound.loc[seeds.index, "task"], seeds, strict=True)))),
        judged=("checkpoint", "size"), lowest=("accuracy", "min"), highest=("accuracy", "max"),
        **{name.removeprefix("alarm "): (name, "sum") for name in names}, true=("true", "sum"),
        spare=("score redundancy", "max"), clean=("clean flagged", "mean"),
    )  # fmt: skip
    names = {"true": "true overfitting", "spare": "highest redundancy", "clean": "clean flagged"}
    return _by_purpose(found.rename(columns=names).reset_index())


def false_alarms(sound: pd.DataFrame) -> pd.DataFrame:
    """Count the false alarms of each indicator at every checkpoint; truly overfitted ones are left out of its own."""
    rows = sound[~sound["task"].isin(CONFOUNDED)]
    overfitted = rows["training"] - rows["accuracy"] >= OVERFITTED_GAP
    parts = []
    for name in (name for name in rows if name.startswith("alarm ")):
        among = rows[~overfitted] if name == "alarm overfitting" else rows
        parts.append((name.removeprefix("alarm "), len(among), int(among[name].sum()), among[name].mean()))
    return pd.DataFrame(parts, columns=["indicator", "judged", "alarms", "share"])


def sound_passed(sound: pd.DataFrame) -> pd.DataFrame:
    """Count the networks that pass of those that are neither truly overfitted nor of a task with a known confounder."""
    last = sound[sound["real"] & (sound["checkpoint"] == sound["checkpoint"].max())]
    kept = last[~last["task"].isin(CONFOUNDED) & (last["training"] - last["accuracy"] < OVERFITTED_GAP)]
    found = kept.groupby("task", sort=False).agg(models=("passes", "size"), passed=("passes", "sum")).reset_index()
    return pd.concat([found, pd.DataFrame([["all", *found[["models", "passed"]].sum()]], columns=found.columns)])


def undecided(sound: pd.DataFrame) -> pd.DataFrame:
    """Give the share of checkpoints at which each family cannot be told."""
    names = [name for name in sound if name.startswith("undecided ")]
    found = sound.groupby(["purpose", "task"], sort=False)[names].mean()
    return _by_purpose(found.rename(columns=lambda name: name.removeprefix("undecided ")).reset_index())


def labels(noisy: pd.DataFrame) -> pd.DataFrame:
    """Give precision and recall of what is called mislabelled, and how well labels are ranked."""
    if not len(noisy):
        return noisy
    groups = noisy.groupby(["purpose", "task", "head", "planted"], sort=False)
    found = groups[["called", "called and wrong", "wrong"]].sum()
    found.insert(0, "networks", groups.size())
    found["precision"] = found["called and wrong"] / found["called"].where(found["called"] > 0)
    found["recall"] = found["called and wrong"] / found["wrong"]
    found = found.join(groups[["AP label_score", "AP margin"]].mean())
    below = noisy.assign(below=noisy["AP label_score"] < noisy["AP margin"] - 0.005)
    found["below margin"] = below.groupby(groups.keys, sort=False)["below"].sum()
    found["alarms"] = groups["alarm outliers"].sum()
    return _by_purpose(found.reset_index())


def gate(sound: pd.DataFrame, faulty: pd.DataFrame) -> pd.DataFrame:
    """Count what the default policy passes, by fault, as it is and where it accepts what cannot be told."""
    rows = pd.concat([sound[sound["checkpoint"] == sound["checkpoint"].max()], faulty[faulty["planted"] != 0.02]])
    rows = rows[rows["real"]].assign(fault=rows["fault"].replace("", "none"))
    found = rows.groupby(["purpose", "fault"], sort=False).agg(
        models=("passes", "size"), passed=("passes", "sum"), accepting=("passes accepting", "sum")
    )
    return _by_purpose(found.rename(columns={"accepting": "passed where undecided is accepted"}).reset_index())


def _by_purpose(found: pd.DataFrame) -> pd.DataFrame:
    return found.sort_values("purpose", key=lambda column: column.map(PURPOSES.index), kind="stable")
