"""The tables of docs/indicators.md, from the scores."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

LOCATED = (
    "tag-corner", "tag-corner-half", "tag-corner-all", "tag-weak", "tag-one", "tag-stripe", "tag-dark_spot", "tag-all",
)  # fmt: skip
"""Conditions whose confounder always lies in one place, at the edge of the image."""


def tables(rows: pd.DataFrame) -> str:
    """All tables as Markdown."""
    rows = prepared(rows)
    parts = [f"## {title}\n\n{to_markdown(table)}" for title, table in _all(rows)]
    return "\n\n".join(parts)


def prepared(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the net and data set, the plain condition, and the verdict."""
    split = rows["name"].str.split("/")
    return rows.assign(
        group=split.str[0].where(split.str.len() > 1, "mnist"),
        condition=split.str[-1],
        alarm=rows["health"] < 0.5,
        undecided=rows["health"] == 0.5,
    )


def _all(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "Overfitting: AUROC of the score within a data set and head, alarms", overfitting(rows)
    yield "Overfitting: changed validation images", shifts(rows)
    for family in ("metadata", "metadata of both"):
        yield f"Confounding with {family}: columns", columns(rows, family)
        yield f"Confounding with {family}: the true tag by condition", tags(rows, family)
    yield "Confounding with regions", regions(rows)
    yield "Confounding without metadata", blind(rows)
    yield "Confounding without metadata, pooled, by data set", blind_by_data(rows)
    yield "Sub-populations: classes flagged", subpopulations(rows)
    yield "Outliers", outliers(rows)
    yield "Null: share of p-values in each fifth", nulls(rows)
    yield "Cost in seconds at the full number of samples, median", cost(rows)


def auroc(faulty: pd.Series, sound: pd.Series) -> float:
    """Of a score, faulty against sound models."""
    if not len(faulty) or not len(sound):
        return float("nan")
    return float(roc_auc_score([*[1] * len(faulty), *[0] * len(sound)], [*faulty, *sound]))


def overfitting(rows: pd.DataFrame) -> pd.DataFrame:
    """By group and condition; sound models of the same group are the negatives."""
    plain = rows[(rows["family"] == "overfitting") & (rows["variant"] == "plain")]
    found = []
    for (group, condition), part in plain.groupby(["group", "condition"]):
        row: dict[str, object] = {"data, head": group, "condition": condition}
        for n in (200, 500, 1000):
            of_size, now = plain[(plain["group"] == group) & (plain["n"] == n)], part[part["n"] == n]
            negatives = of_size[~of_size["fault"] & (of_size["condition"] != "label-noise")]
            if part["fault"].any():
                row[f"AUROC n={n}"] = auroc(now["score"], negatives["score"])
                row[f"hard n={n}"] = auroc(now["hard_gap"], negatives["hard_gap"])
        last = part[part["n"] == 1000]
        row |= {"score": last["score"].mean(), "alarms": _share(last["alarm"])}
        found.append(row)
    return pd.DataFrame(found)


def shifts(rows: pd.DataFrame) -> pd.DataFrame:
    """What becomes of sound models if the validation images are changed."""
    part = rows[(rows["family"] == "overfitting") & (rows["variant"] != "plain")]
    grouped = part.groupby("variant")
    return pd.DataFrame(
        {
            "two-sample AUC, least": grouped["shift"].min(),
            "most": grouped["shift"].max(),
            "cannot be told": grouped["undecided"].apply(_share),
            "alarms": grouped["alarm"].apply(_share),
        }
    ).reset_index()


def columns(rows: pd.DataFrame, family: str) -> pd.DataFrame:
    """Each kind of column, used or not, by sample size."""
    part = rows[(rows["family"] == family) & (rows["n"] > 100)]
    found = []
    for (used, variant), of_kind in part.groupby(["fault", "variant"]):
        row: dict[str, object] = {"column": variant, "used": "yes" if used else "no"}
        for n, sized in of_kind.groupby("n"):
            row[f"alarms n={n}"] = _share(sized["alarm"])
            row[f"cannot be told n={n}"] = _share(sized["undecided"])
        found.append(row)
    return pd.DataFrame(found)


def tags(rows: pd.DataFrame, family: str) -> pd.DataFrame:
    """AUROC against every unused column, and power."""
    part = rows[(rows["family"] == family) & (rows["variant"] != "all columns")]
    found = []
    for condition, of_kind in part[part["fault"] & (part["variant"] == "tag")].groupby("condition"):
        row: dict[str, object] = {"condition": condition}
        for n in (200, 500, 1000):
            sized = of_kind[of_kind["n"] == n]
            row[f"AUROC n={n}"] = auroc(sized["score"], part[~part["fault"] & (part["n"] == n)]["score"])
            row[f"alarms n={n}"] = _share(sized["alarm"])
        found.append(row | {"score": of_kind[of_kind["n"] == 1000]["score"].mean()})
    return pd.DataFrame(found)


def regions(rows: pd.DataFrame) -> pd.DataFrame:
    """By data set, head and condition; networks that do not use a tag are the negatives."""
    part = rows[rows["family"] == "regions"]
    negatives = part[~part["fault"]]
    found = []
    for (fault, group, condition), of_kind in part.groupby(["fault", "group", "condition"]):
        row: dict[str, object] = {"data, head": group, "condition": condition, "fault": fault}
        row["AUROC"] = auroc(of_kind["score"], negatives["score"]) if fault else np.nan
        row |= {"score": of_kind["score"].mean(), "alarms": _share(of_kind["alarm"])}
        row |= {name: of_kind[name].mean() for name in ("outside_share", "outside_area")}
        found.append(row)
    return pd.DataFrame(found)


def blind(rows: pd.DataFrame) -> pd.DataFrame:
    """Image properties, swaps and both, by condition, by whether the confounder has a place, and without one."""
    part = rows[(rows["family"] == "blind")]
    part = part[(part["variant"] == "swaps") | (part["n"] == 1000)]
    found = []
    for variant, of_kind in part.groupby("variant", sort=False):
        negatives, faulty = of_kind[~of_kind["fault"]], of_kind[of_kind["fault"]]
        placed = faulty["condition"].isin(LOCATED)
        kinds = [*faulty.groupby("condition"), ("all with a place", faulty[placed]), ("all without", faulty[~placed])]
        for condition, of_condition in kinds:
            found.append(
                {
                    "test": variant,
                    "condition": condition,
                    "AUROC": auroc(of_condition["score"], negatives["score"]),
                    "score": of_condition["score"].mean(),
                    "alarms": _share(of_condition["alarm"]),
                }
            )
        found.append({"test": variant, "condition": "no confounder", "score": negatives["score"].mean(),
                      "alarms": _share(negatives["alarm"])})  # fmt: skip
    return pd.DataFrame(found)


def blind_by_data(rows: pd.DataFrame) -> pd.DataFrame:
    """Properties and swaps together; several conditions are one where no confounder is used."""
    part = rows[(rows["family"] == "blind") & (rows["variant"] == "pooled")]
    part = part.assign(condition=part["condition"].where(part["fault"], "no confounder"))
    grouped = part.groupby(["group", "condition"])
    numbers = pd.DataFrame({"score": grouped["score"].mean(), "alarms": grouped["alarm"].apply(_share)})
    return numbers.reset_index().rename(columns={"group": "data, head"})


def subpopulations(rows: pd.DataFrame) -> pd.DataFrame:
    """By data set, head and condition."""
    part = rows[rows["family"] == "subpopulations"]
    sums = part.groupby(["group", "condition"])[["score", "of"]].sum().astype(int).reset_index()
    return pd.DataFrame(
        {
            "data, head": sums["group"],
            "condition": sums["condition"],
            "flagged": [f"{found}/{of}" for found, of in zip(sums["score"], sums["of"], strict=True)],
        }
    )


def outliers(rows: pd.DataFrame) -> pd.DataFrame:
    """Average precision by kind, what is flagged, and false alarms."""
    part = rows[(rows["family"] == "outliers")]
    names = {
        "ap_all": "AP all", "ap_mislabelled": "AP mislabelled", "ap_corrupted": "AP corrupted",
        "ap_foreign": "AP foreign", "flagged_bad": "flagged", "found_duplicate": "copies found",
        "found_near": "near copies found",
        "flagged_clean": "clean flagged", "duplicate_clean": "clean called copies",
    }  # fmt: skip
    found = []
    for (group, n), sized in part[part["n"] >= 200].groupby(["group", "n"]):
        planted = sized[sized["condition"] == "outliers"]
        clean = sized[(sized["condition"] != "outliers") & (sized["variant"] == "plain")]
        row: dict[str, object] = {"data, head": group, "n": n}
        for key, name in names.items():
            if key not in sized:  # a set of networks without planted outliers
                continue
            row[name] = (clean if "clean" in key else planted)[key].mean()
        found.append(row | {"alarms": _share(planted["alarm"]), "false alarms": _share(clean["alarm"])})
    return pd.DataFrame(found)


def nulls(rows: pd.DataFrame) -> pd.DataFrame:
    """One-sided p-values of columns that are unused for sure; calibrated is .2 each, more at the right is cautious."""
    part = rows[(rows["family"] == "metadata") & ~rows["fault"] & ~rows["variant"].str.startswith(("tag", "all"))]
    found = []
    for variant, of_kind in part[part["n"] == 1000].groupby("variant"):
        p = norm.sf(of_kind["rz"].dropna())
        shares = np.histogram(p, bins=5, range=(0, 1))[0] / max(len(p), 1)
        found.append({"column": variant, "models": len(p)} | {f"{i / 5:.1f}": s for i, s in enumerate(shares)})
    return pd.DataFrame(found)


def cost(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each family, by group."""
    full = rows[rows["n"] == rows.groupby(["family", "variant"])["n"].transform("max")]
    return full.groupby(["family", "group"])["seconds"].median().unstack().reset_index()


def _share(flags: pd.Series) -> str:
    return f"{int(flags.sum())}/{len(flags)}"


def to_markdown(table: pd.DataFrame) -> str:
    """Write a table as Markdown."""
    lines = [list(map(str, table.columns)), ["---"] * table.shape[1]]
    lines += [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.3f}"
    return str(value)
