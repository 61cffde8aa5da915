"""Which networks are trained: the faults, and the controls that must stay quiet."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Condition:
    """One way to train a network.

    Attributes:
        name: Told apart by it.
        source: Data set, of ``data.SOURCES``.
        net: Network, of ``nets.NETS``.
        width: Channels of the analysed layer.
        n_train: Training samples, 0 = all.
        augment: Whether training images are shifted at random.
        epochs: Over the training set.
        label_noise: Share of wrong labels in every split.
        weight_decay: Of AdamW.
        painter: Tag, of ``faults.PAINTERS``, or empty.
        rule: Classes the tag goes with: ``"half"``, ``"one"``, ``"some"``.
        strength: Cramér's V of tag and rule.
        unused: The tag is in the data, but the network was trained on tags at random.
        outliers: Share of mislabelled samples (and as many damaged or foreign ones) in train and validation.
        fault: Family that must alarm, or empty.
        seeds: How many.
    """

    name: str
    source: str = "mnist"
    net: str = "pool"
    width: int = 64
    n_train: int = 0
    augment: bool = True
    epochs: int = 10
    label_noise: float = 0.0
    weight_decay: float = 0.0
    painter: str = ""
    rule: str = "half"
    strength: float = 0.9
    unused: bool = False
    outliers: float = 0.0
    fault: str = ""
    seeds: int = 6


def _overfitted(prefix: str, few: int, many: int, **common: object) -> list[Condition]:
    base = Condition("", fault="overfitting", **common)  # type: ignore[arg-type]
    return [
        replace(base, name=f"{prefix}overfit-mild", augment=False, epochs=25),
        replace(base, name=f"{prefix}overfit-clear", n_train=few, epochs=40),
        replace(base, name=f"{prefix}overfit-severe", n_train=few, augment=False, epochs=40),
        replace(base, name=f"{prefix}overfit-labels", n_train=many, augment=False, epochs=30, label_noise=0.2),
    ]


def _confounded(prefix: str, **common: object) -> list[Condition]:
    base = Condition("", fault="confounding", **common)  # type: ignore[arg-type]
    return [
        replace(base, name=f"{prefix}tag-corner", painter="corner"),
        replace(base, name=f"{prefix}tag-moving", painter="moving"),
        replace(base, name=f"{prefix}tag-shade", painter="shade", rule="some"),
        replace(base, name=f"{prefix}tag-weak", painter="weak"),
        replace(base, name=f"{prefix}tag-one", painter="corner", rule="one"),
        replace(base, name=f"{prefix}tag-corner-half", painter="corner", strength=0.5),
        replace(base, name=f"{prefix}tag-corner-all", painter="corner", strength=1.0),
    ]


def _quiet(prefix: str, **common: object) -> list[Condition]:
    base = Condition("", **common)  # type: ignore[arg-type]
    return [
        replace(base, name=f"{prefix}sound"),
        replace(base, name=f"{prefix}tag-random", painter="corner", strength=0.0),
        replace(base, name=f"{prefix}tag-unused", painter="corner", unused=True),
        replace(base, name=f"{prefix}shade-unused", painter="shade", rule="some", unused=True),
        replace(base, name=f"{prefix}outliers", outliers=0.02, fault="outliers"),
    ]


def tuning() -> list[Condition]:
    """The benchmark that thresholds may be chosen on."""
    full = _quiet("") + _overfitted("", 300, 1000) + _confounded("")
    full.append(Condition("label-noise", n_train=1000, epochs=12, label_noise=0.2))
    flat = [
        replace(c, name=f"flat/{c.name}", net="flat", seeds=4)
        for c in full
        if not c.name.endswith(("half", "all", "clear"))
    ]
    small = [
        replace(c, name=f"digits/{c.name}", source="digits", n_train=min(c.n_train, 150), epochs=c.epochs * 2, seeds=4)
        for c in full
        if not c.name.endswith(("half", "all", "weak", "clear", "labels", "noise"))
    ]
    wide = [
        replace(c, name=f"{width}/{c.name}", width=width, seeds=2)
        for width in (16, 256, 512)
        for c in full
        if c.name in ("sound", "overfit-severe", "tag-corner", "tag-unused", "outliers")
    ]
    return full + flat + small + wide


def whole() -> list[Condition]:
    """Confounders of the whole image: blur, noise and contrast, which have no place."""
    chosen = []
    for painter in ("soften", "noise", "contrast"):
        base = Condition("", painter=painter, seeds=3)
        chosen += [
            replace(base, name=f"{painter}", fault="confounding"),
            replace(base, name=f"{painter}-unused", unused=True),
            replace(base, name=f"{painter}-random", strength=0.0),
            replace(base, name=f"{painter}-all", strength=1.0, fault="confounding", seeds=2),
        ]
    flat = [replace(c, name=f"flat/{c.name}", net="flat", seeds=2) for c in chosen if not c.name.endswith("all")]
    small = [
        replace(c, name=f"digits/{c.name}", source="digits", epochs=20, seeds=2)
        for c in chosen
        if not c.name.endswith("all")
    ]
    return chosen + flat + small


def heldout() -> list[Condition]:
    """Other data, networks and confounders, never looked at while choosing thresholds."""
    bases = {
        "letters": Condition("", source="letters", net="residual", width=48, epochs=16, seeds=3),
        "scenes": Condition("", source="scenes", net="plain", width=40, epochs=16, seeds=3),
        "photos": Condition("", source="photographs", net="residual", width=32, epochs=24, seeds=4),
    }
    painters = {
        "letters": ("stripe", "dark_spot", "texture"),
        "scenes": ("stripe", "tint", "dark_spot"),
        "photos": ("stripe", "tint"),
    }
    few = {"letters": 330, "scenes": 300, "photos": 100}
    chosen = []
    for name, base in bases.items():
        tags = painters[name]
        poor = replace(base, augment=False, epochs=50, fault="overfitting")
        chosen += [
            replace(base, name=f"{name}/sound"),
            replace(base, name=f"{name}/{tags[0]}-random", painter=tags[0], strength=0.0),
            replace(base, name=f"{name}/{tags[1]}-unused", painter=tags[1], unused=True),
            replace(base, name=f"{name}/outliers", outliers=0.02, fault="outliers"),
            replace(poor, name=f"{name}/overfit-severe", n_train=few[name]),
            replace(poor, name=f"{name}/overfit-labels", n_train=2 * few[name], label_noise=0.2),
        ]
        chosen += [replace(base, name=f"{name}/tag-{tag}", painter=tag, fault="confounding") for tag in tags]
        chosen.append(replace(base, name=f"{name}/tag-all", painter=tags[0], strength=1.0, fault="confounding"))
    return chosen


SETS = {"tuning": tuning, "heldout": heldout, "whole": whole}
"""Names of the sets of networks, for the command line."""
