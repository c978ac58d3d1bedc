"""The model card, the README.md of a shared model, and the facts of its training that it contains.

Names of classes and of data come from users, and a card is public: the names are escaped for YAML and Markdown, and
no path of the training machine is written.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from huggingface_hub import EvalResult, ModelCardData, SpaceCardData

from convit.calibration import NOT_CALIBRATED, Calibration
from convit.errors import InputError, brief, nearest
from convit.intervals import percent_with_interval

MARKER = "<!-- Written by convit: saving again replaces this file. Remove this line to keep changes of your own. -->"
"""Is in every card, to distinguish a README.md that may be replaced from one that convit did not write."""

SHOWN_CLASSES = 20
PAPER = (
    "S. d'Ascoli, H. Touvron, M. Leavitt, A. Morcos, G. Biroli, L. Sagun: *ConViT: Improving Vision Transformers with "
    "Soft Convolutional Inductive Biases*, ICML 2021, [arXiv:2103.10697](https://arxiv.org/abs/2103.10697)."
)


def data_name(data: str) -> str:
    """What the data is called in public: the last part of a folder's path, or a data set's name as it is.

    >>> data_name("/home/ann/photos/flowers/"), data_name("C:\\\\Users\\\\Ann\\\\flowers"), data_name("digits")
    ('flowers', 'flowers', 'digits')
    """
    return re.split(r"[/\\]", data.rstrip("/\\"))[-1] or "data"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingFacts:
    """How a model was trained and how good it got; stored beside the weights. ``None``: not known.

    Raises:
        InputError: a value of a wrong type, a negative or infinite number, or data named by a path.
    """

    data: str
    """A name that may be published, without a path: see :func:`data_name`."""
    started_from: str | None = None
    """What it was fine-tuned from, without a path either; None for a start from scratch."""
    train_images: int | None = None
    val_images: int | None = None
    test_images: int | None = None
    epochs: int | None = None
    best_epoch: int | None = None
    """The epoch whose weights these are, counted from 1."""
    batch_size: int | None = None
    lr: float | None = None
    """Peak learning rate."""
    weight_decay: float | None = None
    seed: int | None = None
    val_top1: float | None = None
    """Accuracy in percent, as all four."""
    val_top5: float | None = None
    test_top1: float | None = None
    test_top5: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), field.type
            # `kind` is a class or a union, which isinstance takes alike; a whole number is a fine float.
            fits = isinstance(value, kind) or (type(value) is int and kind == float | None)  # type: ignore[arg-type]
            number = isinstance(value, int | float)
            if not fits or isinstance(value, bool) or (number and not 0 <= value < 2**63):
                expected = "a name" if field.name in ("data", "started_from") else "a number of at least 0, or None"
                raise InputError(f"training facts: {field.name}: got {brief(value)}, expected {expected}")
        for name, value in (("data", self.data), ("started_from", self.started_from)):
            if value is not None and value != (public := data_name(value)):
                raise InputError(
                    f"training facts: {name}: got {value!r}, expected no path, but a name such as {public!r}"
                )

    def to_dict(self) -> dict[str, Any]:
        """What is known, as JSON values."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """The inverse of :meth:`to_dict`. Raises :class:`InputError` for an unknown key or a wrong value.

        >>> facts = TrainingFacts(data="digits", epochs=3)
        >>> TrainingFacts.from_dict(facts.to_dict()) == facts
        True
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping) or "data" not in values:
            raise InputError(f"training facts: got {brief(values)}, expected at least the key 'data'")
        if unknown := [key for key in values if key not in known]:
            raise InputError(f"training facts: unknown key {brief(unknown[0])}{nearest(str(unknown[0])[:80], known)}")
        return cls(**values)

    @property
    def scores(self) -> tuple[str, int | None, float, float | None] | None:
        """(part, images, top-1, top-5) on the test images if there are any, else on the validation images."""
        for part in ("test", "val"):
            top1 = getattr(self, f"{part}_top1")
            if top1 is not None:
                return part, getattr(self, f"{part}_images"), top1, getattr(self, f"{part}_top5")
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """What a card says of a classifier."""

    architecture: str
    """What the model is, a phrase such as ``"a ConViT of 1.2 million parameters"``."""
    class_names: Sequence[str]
    """The classes in the order of the outputs; of many, the first 20 are shown."""
    image_size: tuple[int, int]
    """(height, width) in pixels."""
    model_name: str
    """The name of the architecture."""
    training: TrainingFacts | None = None
    """How it was trained; the card says so where nothing is known."""
    calibration: Calibration | None = None
    """Its temperature; the card says so where there is none."""

    @property
    def name(self) -> str:
        """What the card is called."""
        return _line(f"{self.training.data}: {self.model_name}" if self.training else self.model_name)

    def sections(self, all_names: str = "") -> tuple[str, ...]:
        """What it is, how it was trained, and how good it is, in Markdown; ``all_names``: where all class names are."""
        height, width = self.image_size
        shown = ", ".join(map(_escaped, self.class_names[:SHOWN_CLASSES]))
        rest = len(self.class_names) - SHOWN_CLASSES
        if rest > 0:
            shown += f", and {rest} more{all_names}"
        return (
            MARKER,
            f"# {_escaped(self.name)}",
            f"An image classifier: {self.architecture}, for images of {height} x {width} pixels.",
            f"Its {len(self.class_names)} classes, in the order of the outputs: {shown}.",
            f"## Training\n\n{_training_text(self.training)}",
            f"## Accuracy\n\n{_scores_text(self.training)}",
            f"## Probabilities\n\n{_calibration_text(self.calibration)}",
        )


def model_card(described: Described, *, repo_id: str | None = None, license: str | None = None) -> str:
    """The text of a README.md: YAML front matter as the Hub reads it, then Markdown.

    Args:
        described: what it says of the model.
        repo_id: ``owner/name`` on the Hub for the example; without it, the example says where to put a folder.
        license: such as ``"mit"``; left out unless given.
    """
    sections = (
        f"---\n{_front_matter(described.name, described.training, license)}---",
        *described.sections(": `label_names` in `config.json` has all of them"),
        f"## Use\n\n{_usage(repo_id)}",
        f"## Reference\n\n{PAPER}",
    )
    return "\n\n".join(sections) + "\n"


def space_card(described: Described, *, license: str | None = None) -> str:
    """The README.md of a folder with the classifier as a web page; its front matter makes it a static Space of the Hub.

    Args:
        described: what it says of the model.
        license: such as ``"mit"``; left out unless given.
    """
    data = SpaceCardData(
        title=described.name,
        sdk="static",
        app_file="index.html",
        license=None if license is None else _line(license),
        tags=["image-classification", "convit"],
    )
    sections = (
        f"---\n{data.to_yaml()}\n---",
        *described.sections(),
        "## Use\n\nOpen `index.html` in a browser and drop photos on it, or put this folder on a static host. The page "
        "holds the whole classifier and makes no requests: no photo leaves the device.",
        f"## Reference\n\n{PAPER}",
    )
    return "\n\n".join(sections) + "\n"


def _front_matter(name: str, training: TrainingFacts | None, license: str | None) -> str:
    """The card's data in the Hub's form."""
    results = []
    if training is not None and training.scores is not None:
        part, _, *accuracies = training.scores
        public = _line(training.data)
        slug = re.sub(r"[^a-z0-9]+", "-", public.lower()).strip("-") or "data"
        kinds = {"accuracy": "Top-1 accuracy", "top_5_accuracy": "Top-5 accuracy"}
        results = [
            EvalResult(
                task_type="image-classification",
                task_name="Image Classification",
                dataset_type=slug,
                dataset_name=public,
                dataset_split={"test": "test", "val": "validation"}[part],
                metric_type=kind,
                metric_name=label,
                metric_value=round(value / 100, 6),
            )
            for (kind, label), value in zip(kinds.items(), accuracies, strict=True)
            if value is not None
        ]
    data = ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "convit"],
        license=None if license is None else _line(license),
        model_name=name if results else None,
        eval_results=results or None,
    )
    return f"{data.to_yaml()}\n"


def _training_text(training: TrainingFacts | None) -> str:
    if training is None:
        return "How this model was trained is not recorded."
    parts = {"learned from": training.train_images, "validated on": training.val_images}
    parts["tested on"] = training.test_images
    images = ", ".join(f"{count} {verb}" for verb, count in parts.items() if count is not None)
    epochs = str(training.epochs) if training.epochs is not None else ""
    if training.best_epoch is not None:
        epochs += f"{', ' if epochs else ''}of which these weights are epoch {training.best_epoch}"
    numbers = {
        "Batch size": training.batch_size,
        "Peak learning rate": training.lr,
        "Weight decay": training.weight_decay,
        "Seed": training.seed,
    }
    rows = {"Data": _escaped(training.data), "Images": images, "Epochs": epochs}
    if training.started_from is not None:
        rows["Started from"] = _escaped(training.started_from)
    rows |= {label: str(value) for label, value in numbers.items() if value is not None}
    return "| | |\n|---|---|\n" + "\n".join(f"| {label} | {value} |" for label, value in rows.items() if value)


def _scores_text(training: TrainingFacts | None) -> str:
    if training is None or training.scores is None:
        return "Not recorded."
    part, images, top1, top5 = training.scores
    text = f"Top-1 {_accuracy(top1, images)}" + (f", top-5 {_accuracy(top5, images)}" if top5 is not None else "")
    on = f"{images} " if images is not None else ""
    if part == "test":
        return f"{text}, on {on}test images that were used for nothing else."
    return f"{text}, on {on}validation images. They also chose the best epoch, so expect slightly less on new images."


def _accuracy(percent: float, images: int | None) -> str:
    """An accuracy in percent, with its interval where the number of images is known."""
    return percent_with_interval(percent, images) if images else f"{percent:.2f}%"


def _calibration_text(calibration: Calibration | None) -> str:
    if calibration is None:
        return f"They are {NOT_CALIBRATED}. How sure it is need not be how often it is right."
    return (
        f"They are {calibration}: `softmax(logits / {calibration.temperature})`. So of the answers with a probability "
        "of 80% about 80% are right, on images like those. `convit` computes them so; elsewhere, divide the logits."
    )


def _usage(repo_id: str | None) -> str:
    source = f"hf:{repo_id}" if repo_id else "path/to/this/folder"
    timm_source = f"hf-hub:{repo_id}" if repo_id else f"local-dir:{source}"
    return f"""With `convit`, preprocessing and class names included:

```python
import convit

classifier = convit.load("{source}")
print(classifier.predict("photo.jpg", top_k=3))
```

With `timm`, which knows the architecture once `convit` is imported:

```python
import convit
import timm

model = timm.create_model("{timm_source}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
class_names = model.pretrained_cfg["label_names"]
```"""


def _line(text: str) -> str:
    """One line of what can be shown: line breaks, control characters and broken Unicode would end up in the YAML."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))


_MARKUP = {ord(c): "\\" + c for c in "\\`*_[]|~$@#:"} | {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}


def _escaped(text: str) -> str:
    r"""Text from a user as it stands in a line or a table cell of Markdown, as itself.

    >>> print(_escaped("`a|b`\n<script>"))
    \`a\|b\` &lt;script&gt;
    """
    return _line(text).translate(_MARKUP)
