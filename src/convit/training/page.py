"""``report.html``: a finished run on one page that needs no other file, in words that a newcomer understands.

Curves and gates are drawn as SVG, so they fit light and dark and show any script. The page has no script, makes no
requests, and every name of a class or a file is shown as plain text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convit.data import ImageSet
from convit.errors import counted
from convit.events import Finding, RunEnded
from convit.model_card import data_name
from convit.pages.markup import document, filled, part, text, thumbnail_uri
from convit.training.charts import Line, chart
from convit.training.evaluation import Evaluation, best_record
from convit.training.mistakes import Mistake
from convit.training.outcome import Outcome
from convit.training.plan import MAY_CHANGE, PLACES, Plan

REPORT = "report.html"
MOST_CLASSES = 16
"""With more classes than this, the pairs that are taken for each other are listed in place of the whole matrix."""
MOST_PAIRS = 20
MOST_MISTAKES = 24
"""So many of the misclassified images are shown."""
SIDE = 280
"""Pixels of the longer side of a shown image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All that the page shows of a run."""

    plan: Plan
    history: Sequence[Mapping[str, Any]]
    evaluation: Evaluation
    outcome: Outcome
    ended: RunEnded
    mistakes: Sequence[Mistake]
    images: ImageSet
    """Those of the evaluation, from which the mistakes are read."""


def page(report: Report) -> str:
    """The page of a run, a whole HTML document. Raises :class:`InputError` for an image that is gone or damaged now."""
    plan, found = report.plan, report.outcome
    kind = "test" if found.split == "test" else "validation"
    counts = {split: sum(of) for split, of in plan.facts.counts.items()}
    images = f"{counts['train']} images to learn from, {counts['val']} to validate"
    images += f", {counts['test']} to test" if "test" in counts else ""
    title = text(f"{data_name(plan.facts.root)}: report of a training")
    parts = {
        "title": title,
        "subtitle": text(f"{plan.options.model}: {len(plan.class_names)} classes; {images}"),
        "score": f"{found.top1:.1f}%",
        "score_of": text(f"of {counted(found.images, f'{kind} image')} right"),
        "scale": _scale(found),
        "findings": "".join(map(_finding, report.ended.findings)),
        "curves_note": text(_curves_note(plan)),
        "curves": _curves(report.history),
        "confusion": _confusion(report.evaluation, found),
        "mistakes": _mistakes(report),
        "gates": _gates(report.history),
        "decisions": _rows(_decisions(plan, report.history)),
        "commands": "".join(
            f"<dt><code>{text(command)}</code></dt><dd>{text(what)}</dd>"
            for command, what in report.ended.commands.items()
        ),
        "files": "".join(
            f'<tr><th><a href="{text(name)}">{text(name)}</a></th><td>{text(what)}</td></tr>'
            for name, what in report.ended.files.items()
            if name != REPORT
        ),
    }
    return document(title, ["report/page.css"], filled(part("report/body.html"), parts))


def _finding(found: Finding) -> str:
    more = f'<dd class="advice">{text(found.advice)}</dd>' if found.advice else ""
    return f"<div><dt>{text(found.topic)}</dt><dd>{text(found.text)}</dd>{more}</div>"


def _scale(found: Outcome) -> str:
    """From 0 to 100%: the accuracy, its interval, and what always the same answer gives."""
    (low, high), width, left = found.interval, 300.0, 12.0
    place = {name: left + width * value / 100 for name, value in (("low", low), ("high", high), ("at", found.top1))}
    guess = left + width * found.largest_share / 100
    anchor = "start" if guess < 110 else "end" if guess > 220 else "middle"
    about = (
        f"accuracy {found.top1:.1f}%, 95% interval {low:.0f} to {high:.0f}%; always the same answer gives "
        f"{found.largest_share:.0f}%"
    )
    over = min(max((place["low"] + place["high"]) / 2, 70.0), 250.0)
    return (
        f'<svg viewBox="0 0 324 66" role="img" aria-label="{text(about)}">'
        f'<text class="strong" x="{over:.1f}" y="14" text-anchor="middle">{low:.0f} to {high:.0f}% on new images</text>'
        f'<rect class="track" x="{left}" y="24" width="{width}" height="10" rx="5"/>'
        f'<rect class="interval" x="{place["low"]:.1f}" y="24" width="{place["high"] - place["low"]:.1f}" height="10"/>'
        f'<circle class="point" cx="{place["at"]:.1f}" cy="29" r="7"/>'
        f'<path class="guess" d="M{guess:.1f} 20V42"/>'
        f'<text x="{guess:.1f}" y="57" text-anchor="{anchor}">always the same answer: {found.largest_share:.0f}%</text>'
        "</svg>"
    )


def _curves_note(plan: Plan) -> str:
    changed = plan.options.mixup or plan.options.cutmix or plan.options.label_smoothing or plan.options.rand_augment
    note = "Validation images are not learned from: they tell how it does on new ones. The ring is the best epoch, "
    note += "whose model is kept."
    if changed:
        note += " The training loss is of images made harder on purpose, so it may lie above the other."
    return note


def _curves(history: Sequence[Mapping[str, Any]]) -> str:
    """Loss and accuracy by epoch, as two figures."""
    epochs, best = [record["epoch"] for record in history], best_record([dict(record) for record in history])
    losses = chart(
        [
            Line(kind="quiet", x=epochs, y=[record["train_loss"] for record in history]),
            Line(kind="blue", x=epochs, y=[record["val_loss"] for record in history]),
        ],
        about=f"loss by epoch; on the validation images {history[-1]['val_loss']:.2f} at the end",
    )
    accuracies = [Line(kind="blue", x=epochs, y=[record["val_top1"] for record in history])]
    names = [("blue", "right")]
    if "val_top5" in history[0]:
        accuracies.insert(0, Line(kind="orange", x=epochs, y=[record["val_top5"] for record in history]))
        names.append(("orange", "among the first five"))
    accuracy = chart(
        accuracies,
        about=f"accuracy by epoch; best {best['val_top1']:.1f}% in epoch {best['epoch']}",
        limits=(0.0, 100.0),
        percent=True,
        ringed=(best["epoch"], best["val_top1"]),
    )
    return _figure("Loss", [("quiet", "training"), ("blue", "validation")], losses) + _figure(
        "Validation images right", names, accuracy
    )


def _figure(title: str, names: Iterable[tuple[str, str]], drawing: str) -> str:
    key = "".join(f'<span class="{kind}">{text(name)}</span>' for kind, name in names)
    return f"<figure><figcaption>{text(title)}<small>{key}</small></figcaption>{drawing}</figure>"


def _confusion(result: Evaluation, found: Outcome) -> str:
    """The confusion matrix as a table, or of many classes the pairs that are confused most and every class's recall."""
    counts = result.confusion.sum(axis=1)
    if len(result.class_names) <= MOST_CLASSES:
        flat = " flat" if max(map(len, result.class_names)) <= 3 else ""
        head = "".join(f"<th><bdi>{text(name)}</bdi></th>" for name in result.class_names)
        rows = []
        for i, name in enumerate(result.class_names):
            cells = []
            for j, count in enumerate(result.confusion[i].tolist()):
                heat = f"h{min(6, int(6.0 * (count / int(counts[i]))) + 1)}" if count else "none"
                cells.append(f'<td class="{heat}{" own" * (i == j)}">{count}</td>')
            share = f"{100 * result.recall[i]:.0f}% of {counts[i]}" if counts[i] else "none"
            rows.append(f"<tr><th><bdi>{text(name)}</bdi></th>{''.join(cells)}<td class='sum'>{share}</td></tr>")
        return (
            "<p>A row is a class, and its numbers say what the model took its images for; in the framed cells it is "
            "right. At the end of a row: how many of the class are right.</p>"
            f'<div class="wide"><table class="matrix{flat}"><thead><tr><th></th>{head}<th></th></tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )
    pairs = [
        (f"{pair.first} ↔ {pair.second}", f"{pair.first_as_second} + {pair.second_as_first}")
        for pair in found.confused[:MOST_PAIRS]
    ]
    worst = sorted(np.flatnonzero(counts).tolist(), key=lambda i: (result.recall[i], -counts[i]))[:MOST_PAIRS]
    classes = [(result.class_names[i], f"{100 * result.recall[i]:.0f}% of {counts[i]}") for i in worst]
    return (
        f"<p>The pairs that are taken for each other most often, in both directions, of {len(found.confused)}; "
        "confusion.csv has all.</p>"
        f'<table class="plain">{_rows(pairs)}</table>'
        "<h3>Classes that it gets right least often</h3>"
        f'<table class="plain">{_rows(classes)}</table>'
    )


def _mistakes(report: Report) -> str:
    """The misclassified images, the highest loss first; nothing where there are none."""
    if not report.mistakes:
        return ""
    shown = [_mistake(mistake, report.images) for mistake in report.mistakes[:MOST_MISTAKES]]
    of = f"{len(shown)} of {len(report.mistakes)}" if len(shown) < len(report.mistakes) else f"All {len(shown)}"
    return (
        "<section><h2>Its mistakes</h2>"
        f"<p>{of}, the worst first: images that it was sure of, and wrong. A wrong label is often among them; "
        "mistakes.csv has all.</p>"
        f'<div class="mistakes">{"".join(shown)}</div></section>'
    )


def _mistake(mistake: Mistake, images: ImageSet) -> str:
    uri, coarse = thumbnail_uri(images.read(mistake.index), SIDE)
    kind = ' class="coarse"' if coarse else ""
    return (
        f'<figure><div class="frame"><img{kind} src="{uri}" alt="{text(mistake.name)}"></div>'
        f"<figcaption>is <bdi>{text(mistake.true)}</bdi>, taken for <bdi>{text(mistake.predicted)}</bdi>"
        f"<small>{100 * mistake.probability:.0f}% sure</small><small><bdi>{text(mistake.name)}</bdi></small>"
        "</figcaption></figure>"
    )


def _gates(history: Sequence[Mapping[str, Any]]) -> str:
    """The gate of every head by epoch, a drawing for each layer; nothing for a model without gates."""
    there = [record for record in history if record.get("gates")]
    if not there:
        return ""
    epochs = [record["epoch"] for record in there]
    drawn = []
    for layer in range(len(there[0]["gates"])):
        heads = np.array([record["gates"][layer] for record in there], dtype=np.float64)
        lines = [Line(kind="blue thin", x=epochs, y=heads[:, head].tolist()) for head in range(heads.shape[1])]
        mean = heads.mean(axis=1)
        lines.append(Line(kind="orange", x=epochs, y=mean.tolist()))
        about = f"gates of layer {layer + 1}, from a mean of {mean[0]:.2f} to {mean[-1]:.2f}"
        drawing = chart(lines, about=about, size=(220, 150), limits=(0.0, 1.0))
        drawn.append(_figure(f"layer {layer + 1}", (), drawing))
    return (
        "<section><h2>What its heads look by</h2>"
        "<p>ConViT's heads start by looking at the patches around each patch, as a convolution does, and may learn to "
        "look by content instead. A gate says by which: 1 is by position alone, 0 by content alone. Each blue line is "
        "a head, the orange one their mean.</p>"
        f'<div class="charts small">{"".join(drawn)}</div></section>'
    )


def _decisions(plan: Plan, history: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What was asked for and what was decided, with the reasons; no paths of this machine: a page may be sent on."""
    asked = {name: value for name, value in plan.given.items() if name not in (*MAY_CHANGE, *PLACES)}
    rows = [(_option(name), f"{value} (asked for)") for name, value in asked.items()]
    rows += [(_option(name), why) for name, why in plan.reasons.items()]
    minutes = sum(record["seconds"] for record in history) / 60
    return [*rows, ("time", f"{minutes:.1f} minutes of training steps in {counted(len(history), 'epoch')}")]


def _option(name: str) -> str:
    return name if name == "augmentation" else f"--{name.replace('_', '-')}"


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<tr><th><bdi>{text(name)}</bdi></th><td>{text(value)}</td></tr>" for name, value in rows)
