"""The page of a check, ``check.html``: one file that needs no other, without scripts.

It makes no requests: its policy (CSP) forbids all but its own style and pictures that are inside it. Names of images
and classes are always plain text.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from convit.checks.confidence import Doubt
from convit.checks.faults import Group
from convit.checks.near import ALIKE
from convit.checks.report import Report
from convit.errors import InputError
from convit.events import Advanced, Listener, PassBegan, ignore
from convit.pages.markup import document, filled, part, text, thumbnail_uri

MOST_PICTURES = 48
"""Pictures of one kind of fault, and groups of repeated ones; the JSON has all."""
MOST_OF_GROUP = 6
MOST_ROWS = 200
SIDE = 160
"""Pixels of the longer side of a picture in the page, at most."""
HARM = "Across splits: accuracy on them says too much. Across classes: a label may be wrong."


def page(report: Report, tell: Listener = ignore) -> str:
    """The page of a report, a whole HTML document; it reads the images that it shows once more."""
    sections = list(_sections(report))
    shown = [key for key, _ in sections]
    tell(PassBegan("drawing check.html", len(sections)))
    parts: list[str] = []
    for _, section in sections:
        parts.append(section())
        tell(Advanced(1))
    title = text(f"Check of {report.name}")
    fields = {
        "title": title,
        "about": "\n  ".join(f"<p>{text(line)}</p>" for line in _about(report)),
        "counts": "\n    ".join(_count(kind, count, shown) for kind, count, _ in report.rows()),
        "sections": "\n  ".join(parts),
    }
    return document(title, ["check/page.css"], filled(part("check/body.html"), fields))


def _about(report: Report) -> Iterator[str]:
    splits = ", ".join(f"{count} {split}" for split, count in report.counts().items() if split != "all")
    classes = f"{len(report.pictures)} images in {len(report.pictures.class_names)} classes"
    yield f"{classes}{f' ({splits})' if splits else ''}, from {report.root}. Nothing of them was changed."
    if report.left_out:
        yield f"The cleaned list is without {len(report.left_out)} of them; check.json says which, and why."
    yield from report.notes


def _count(kind: str, count: int, shown: Sequence[str]) -> str:
    tile = f"<b>{count}</b>{text(kind)}"
    return f'<li><a href="#{_anchor(kind)}">{tile}</a></li>' if kind in shown else f"<li><div>{tile}</div></li>"


def _sections(report: Report) -> Iterator[tuple[str, Callable[[], str]]]:
    """The kinds of faults that there are, and what makes the section of each."""
    if report.unreadable:
        yield "unreadable", partial(_unreadable, report)
    if report.exact:
        about = f"Files that are the same to the byte. {HARM}"
        yield "duplicates", partial(_groups, report, "duplicates", report.exact, about)
    if report.near:
        about = (
            "Pictures that are nearly the same: compressed anew, resized, cropped a little, or brighter. Their grey "
            f"values correlate by {report.alike:.3f} or more. Photos of one series may be among them. {HARM}"
        )
        if report.alike > ALIKE:
            about += " Different pictures of this data are much alike too: look at each before you trust it."
        yield "near duplicates", partial(_groups, report, "near duplicates", report.near, about)
    if report.labels is not None and report.labels.doubts:
        yield "probable wrong labels", partial(_labels, report)
    if report.small:
        yield "small classes", partial(_small, report)
    for kind, about in (
        ("size", "Pictures with far more or fewer pixels than the others, or of another shape."),
        ("brightness", "Pictures that are too dark, too bright or of one colour to show much."),
        ("blur", "Pictures with far less fine detail than the others: out of focus, shaken, or enlarged."),
    ):
        if report.odd_of(kind):
            yield kind, partial(_odd, report, kind, about)


def _unreadable(report: Report) -> str:
    rows = (
        (report.pictures.name(i), report.pictures.class_name(i), reason.partition("; expected")[0])
        for i, reason in report.unreadable
    )
    about = "Files that do not decode. 'convit train' refuses them, or leaves them out with --skip-bad."
    return _section("unreadable", about, _table(("file", "class", "what is wrong"), rows, len(report.unreadable)))


def _groups(report: Report, kind: str, groups: Sequence[Group], about: str) -> str:
    boxes = []
    for group in groups[:MOST_PICTURES]:
        tags = []
        if group.splits:
            tags.append("<b>across splits</b>")
        if group.classes:
            tags.append("<b>across classes</b>")
        if group.likeness < 1:
            tags.append(f"correlation {group.likeness:.3f}")
        if (more := len(group.images) - MOST_OF_GROUP) > 0:
            tags.append(f"and {more} more of it")
        figures = "".join(_figure(report, i, _where(report, i)) for i in group.images[:MOST_OF_GROUP])
        boxes.append(f'<section><div class="tags">{" · ".join(tags)}</div><div class="group">{figures}</div></section>')
    return _section(kind, about, f'<div class="groups">{"".join(boxes)}</div>{_more(len(groups), MOST_PICTURES)}')


def _labels(report: Report) -> str:
    assert report.labels is not None

    def captions(doubt: Doubt) -> tuple[str, ...]:
        given, better = report.pictures.class_name(doubt.image), report.pictures.class_names[doubt.suggested]
        return (
            f'<span><span class="given">{text(given)}</span> {doubt.given_probability:.1%}</span>',
            f'<span class="better">{text(better)} {doubt.suggested_probability:.1%}</span>',
        )

    about = (
        f"Confident learning on {report.labels.source}: the label, struck out, and the class that is more probable; "
        f"{report.labels.strength}. The surest come first. Most of what a weak model doubts is right: look."
    )
    doubts = report.labels.doubts
    figures = "".join(_figure(report, doubt.image, *captions(doubt)) for doubt in doubts[:MOST_PICTURES])
    body = f'<div class="pictures">{figures}</div>{_more(len(doubts), MOST_PICTURES)}'
    return _section("probable wrong labels", about, body)


def _small(report: Report) -> str:
    splits = list(report.counts())
    heads = ("class", *("images" if split == "all" else split for split in splits), "what is wrong")
    rows = ((one.name, *(str(one.counts[split]) for split in splits), one.why) for one in report.small)
    return _section("small classes", "Classes with too few images.", _table(heads, rows, len(report.small)))


def _odd(report: Report, kind: str, about: str) -> str:
    found = report.odd_of(kind)
    figures = (_figure(report, odd.image, f"<span>{text(odd.why)}</span>") for odd in found[:MOST_PICTURES])
    return _section(kind, about, f'<div class="pictures">{"".join(figures)}</div>{_more(len(found), MOST_PICTURES)}')


# -- parts -------------------------------------------------------------------------------------------------------------


def _section(kind: str, about: str, body: str) -> str:
    title = kind[0].upper() + kind[1:]
    heading = f'<h2 id="{_anchor(kind)}">{text(title)}</h2><p>{text(about)}</p>'
    return f'<section aria-labelledby="{_anchor(kind)}">{heading}{body}</section>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], count: int) -> str:
    numbers = {i for i in range(1, len(heads) - 1) if heads[-1] == "what is wrong" and heads[0] == "class"}

    def cell(tag: str, i: int, value: str) -> str:
        kind = ' class="number"' if i in numbers else ""
        return f"<{tag}{kind}><bdi>{text(value)}</bdi></{tag}>"

    head = "".join(cell("th", i, value) for i, value in enumerate(heads))
    body = []
    for row in rows:
        body.append(f"<tr>{''.join(cell('td', i, value) for i, value in enumerate(row))}</tr>")
        if len(body) == MOST_ROWS:
            break
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<div class="scroll">{table}</div>{_more(count, MOST_ROWS)}'


def _more(count: int, most: int) -> str:
    return f"<p>{most} of {count} are shown; check.json has all.</p>" if count > most else ""


def _where(report: Report, i: int) -> str:
    split = report.pictures.splits[i]
    beside = "" if split == "all" else f" · {text(split)}"
    return f"<span><bdi>{text(report.pictures.class_name(i))}</bdi>{beside}</span>"


def _figure(report: Report, i: int, *captions: str) -> str:
    name = text(report.pictures.name(i))
    try:
        source, coarse = thumbnail_uri(report.pictures.read(i), SIDE)
        small = ' class="small"' if coarse else ""
        picture = f'<img{small} src="{source}" alt="{name}" loading="lazy">'
    except InputError:  # it was there when it was checked
        picture = "<span>no longer there</span>"
    told = "".join(captions)
    return (
        f'<figure><div class="frame">{picture}</div>'
        f'<figcaption>{told}<span class="name"><bdi>{name}</bdi></span></figcaption></figure>'
    )


def _anchor(kind: str) -> str:
    return kind.replace(" ", "-")
