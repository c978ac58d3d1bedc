"""What a check found, as values, as lines for a terminal and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convit.checks.confidence import Doubt
from convit.checks.faults import Group, OddPicture, SmallClass
from convit.checks.pictures import Pictures
from convit.data.scan import BadImage


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """What was found about labels."""

    doubts: Sequence[Doubt]
    """The labels that are probably wrong, the surest first."""
    source: str
    """Where the predictions come from, in words."""
    checked: int
    """How many images have a prediction of a model that did not learn from them."""
    agreeing: int
    """For how many of them the label is the most probable class."""

    @property
    def strength(self) -> str:
        """In words how far to trust the doubts: they come from the other images, most of which are labelled right."""
        return (
            f"{self.checked} looked at; the model agrees with {self.agreeing / max(1, self.checked):.0%} of the labels"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All that a check found."""

    name: str
    """A short name of the data."""
    root: str
    """The value of DATA that opens the images again, from any working directory."""
    pictures: Pictures
    unreadable: Sequence[tuple[int, str]]
    """Image and reason."""
    exact: Sequence[Group]
    near: Sequence[Group]
    near_pairs: Sequence[tuple[int, int]]
    """The pairs that link the groups of nearly the same pictures, between the first ones of the same to the byte."""
    small: Sequence[SmallClass]
    odd: Sequence[OddPicture]
    alike: float
    """The least correlation of nearly the same pictures."""
    labels: Labels | None = None
    """None where labels were not checked."""
    left_out: Sequence[BadImage] = ()
    """What the cleaned list leaves out, and why; empty where none was asked for."""
    notes: Sequence[str] = ()

    def odd_of(self, kind: str) -> list[OddPicture]:
        """The odd pictures of one kind."""
        return [odd for odd in self.odd if odd.kind == kind]

    def counts(self) -> dict[str, int]:
        """How many images each split has."""
        splits = self.pictures.splits
        return {split: splits.count(split) for split in dict.fromkeys(splits)}

    def examples(self, most: int) -> list[str]:
        """Lines that name up to so many of each kind of fault, the worst first, and say how many more there are."""
        named = self.pictures.name
        kinds = [[f"does not decode: {named(i)}: {reason}" for i, reason in self.unreadable]]
        for groups, what in ((self.exact, "the same"), (self.near, "nearly the same")):
            kinds.append([])
            for group in groups:
                some = " and ".join(f"{named(i)} ({self.pictures.class_name(i)})" for i in group.images[:2])
                kinds[-1].append(f"{what}: {some}" + (f" and {len(group.images) - 2} more" * (len(group.images) > 2)))
        kinds.append([])
        for doubt in self.labels.doubts if self.labels is not None else ():
            label, better = self.pictures.class_name(doubt.image), self.pictures.class_names[doubt.suggested]
            sure = f"{doubt.suggested_probability:.0%}, its label {doubt.given_probability:.0%}"
            kinds[-1].append(f"label {label}, probably {better} ({sure}): {named(doubt.image)}")
        kinds.append([f"class {one.name}: {one.why}" for one in self.small])
        for kind in ("size", "brightness", "blur"):
            kinds.append([f"{kind}: {named(odd.image)}: {odd.why}" for odd in self.odd_of(kind)])
        return [
            line
            for lines in kinds
            for line in (*lines[:most], *([f"and {len(lines) - most} more like this"] if len(lines) > most else []))
        ]

    def rows(self) -> list[tuple[str, int, str]]:
        """Each kind of fault, how many there are, and what to know of it."""
        exact, near = (
            f"{len(groups)} pictures more than once{_where(groups)}" if groups else ""
            for groups in (self.exact, self.near)
        )
        rows = [
            ("unreadable", len(self.unreadable), "images that do not decode" if self.unreadable else ""),
            ("duplicates", sum(len(group.images) - 1 for group in self.exact), exact),
            ("near duplicates", sum(len(group.images) - 1 for group in self.near), near),
        ]
        if self.labels is not None:
            rows.append(("probable wrong labels", len(self.labels.doubts), f"of {self.labels.strength}"))
        rows.append(("small classes", len(self.small), self.small[0].why if len(self.small) == 1 else ""))
        for kind, what in (
            ("size", "size or shape unlike the others"),
            ("brightness", "too dark, too bright or of one colour"),
            ("blur", "blurred beside the others"),
        ):
            found = self.odd_of(kind)
            rows.append((kind, len(found), what if found else ""))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON. Images are named as in the data."""
        pictures = self.pictures
        document: dict[str, Any] = {
            "data": self.name,
            "root": self.root,
            "images": len(pictures),
            "splits": self.counts(),
            "classes": list(pictures.class_names),
            "unreadable": [{**self.image(i), "reason": reason} for i, reason in self.unreadable],
            "duplicates": [self._group(group) for group in self.exact],
            "near_duplicates": [{"likeness": round(group.likeness, 4), **self._group(group)} for group in self.near],
            "near_duplicates_from": round(self.alike, 4),
            "small_classes": [{"class": one.name, "images": dict(one.counts), "why": one.why} for one in self.small],
        }
        for kind in ("size", "brightness", "blur"):
            document[kind] = [{**self.image(odd.image), "why": odd.why} for odd in self.odd_of(kind)]
        if self.labels is not None:
            document["labels"] = {
                "predictions": self.labels.source,
                "checked": self.labels.checked,
                "agreeing": self.labels.agreeing,
                "probably_wrong": [
                    {
                        **self.image(doubt.image),
                        "suggested": pictures.class_names[doubt.suggested],
                        "probability_of_label": round(doubt.given_probability, 6),
                        "probability_of_suggested": round(doubt.suggested_probability, 6),
                    }
                    for doubt in self.labels.doubts
                ],
            }
        if self.left_out:
            document["left_out"] = [{"image": one.name, "reason": one.reason} for one in self.left_out]
        document["notes"] = list(self.notes)
        return document

    def image(self, i: int) -> dict[str, str]:
        """Name, split and class of an image."""
        return {"image": self.pictures.name(i), "split": self.pictures.splits[i], "class": self.pictures.class_name(i)}

    def _group(self, group: Group) -> dict[str, Any]:
        return {
            "across_splits": group.splits,
            "across_classes": group.classes,
            "images": [self.image(i) for i in group.images],
        }


def _where(groups: Sequence[Group]) -> str:
    """How many groups are across splits, and across classes."""
    counts = ((sum(group.splits for group in groups), "splits"), (sum(group.classes for group in groups), "classes"))
    told = [f"{count} of them across {what}" for count, what in counts if count]
    return ": " + ", ".join(told) if told else ""
