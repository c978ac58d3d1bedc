"""A list of images and their labels: .csv, .tsv or .parquet."""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from convit.data.image_sets import FileImages
from convit.data.sources.interface import (
    Opening,
    Source,
    SourceKind,
    class_called,
    class_order,
    is_one_line,
    matched,
    path_of,
    split_called,
)
from convit.errors import InputError, brief, listing, one_line
from convit.files import Listed, absolute, kind_of, on_disk, opened, read

SUFFIXES = (".csv", ".tsv", ".parquet")

_COLUMNS = {
    "path": ("path", "image", "file", "filename", "file_name"),
    "label": ("label", "class", "target"),
    "split": ("split", "part"),
}
_COLUMNS_ELSE = {
    "path": ("image_path", "img_path", "filepath", "file_path", "img", "image_name", "img_name"),
    "label": ("labels", "label_name", "class_name", "category"),
}
"""Names that mean the same where none of the others is there: many a list has a number and a name of each label."""
_EXPECTED = (
    "a header line with a column 'path' (or image, file, filename), a column 'label' (or class, target), and if you "
    "like a column 'split' (or part) of train, val and test"
)


class _Row(NamedTuple):
    """One image of the list. place: ``line 7`` of text, where a header is line 1; ``row 7`` of Parquet, from 1 on."""

    place: str
    path: str
    label: str
    split: str


def open_table(data: str, opening: Opening) -> Source:
    """The images that a file lists, one a row, with their labels.

    Columns are found by the words in the header, in upper or lower case; others are ignored. Paths are relative to the
    file's folder, or absolute. Text is UTF-8 with commas, semicolons or tabs, whichever the header has; blanks around
    a value do not count, and empty lines neither. In Parquet, paths are text, labels text or whole numbers.

    Without a column ``split`` it is one undivided set. Classes are sorted by name, or by value if all are whole
    numbers; where there is a train split its classes are the classes, and each split is matched to them by name.

    Raises :class:`InputError`, with the number of the line or row, for a file that is not there (unless
    :attr:`Opening.missing`) or listed twice, an empty path, label or split, a line with too many or too few values; and
    for columns that are not there, no row, a class of val or test that train lacks, or fewer classes than asked for.
    """
    path = path_of(data)
    rows = _as_on_disk(path, _parquet_rows(path) if path.suffix.lower() == ".parquet" else _text_rows(path))
    if not rows:
        raise InputError(f"{path}: no row below the header; expected one for each image")
    _check(path, rows, missing=opening.missing)
    sets = {}
    for split in dict.fromkeys(row.split for row in rows):
        chosen = [row for row in rows if row.split == split]
        class_names = class_order(row.label for row in chosen)
        position = {name: i for i, name in enumerate(class_names)}
        names = [PurePath(row.path).as_posix() for row in chosen]
        sets[split] = FileImages(absolute(path).parent, names, [position[row.label] for row in chosen], class_names)
    class_names, matching = matched(sets, min_classes=opening.min_classes, where=str(path), expected="two labels")
    return Source(name=path.stem, root=str(absolute(path)), class_names=class_names, splits=matching)


def _as_on_disk(path: Path, rows: Iterable[_Row]) -> list[_Row]:
    """The rows, with paths of the Unicode form that the disk has: programs change it, and people see no difference."""
    folder, listed, found = absolute(path).parent, Listed(), []
    for row in rows:
        if "\\" in row.path and not (folder / row.path).exists():  # written on Windows
            row = row._replace(path=row.path.replace("\\", "/"))
        if not row.path.isascii() and (file := on_disk(folder / row.path, listed)) != folder / row.path:
            inside = file.is_relative_to(folder) and not Path(row.path).is_absolute()
            row = row._replace(path=str(file.relative_to(folder) if inside else file))
        found.append(row)
    return found


def _check(path: Path, rows: Sequence[_Row], *, missing: bool) -> None:
    """Every row is of a file that is there, if none may be ``missing``, and no two are of the same."""
    folder = absolute(path).parent
    seen: dict[str, str] = {}
    gone = []
    for row in rows:
        for what, value in (("path", row.path), ("label", row.label)):
            if not value:
                raise InputError(f"{path}, {row.place}: no {what}; expected one in each row")
            if not is_one_line(value):
                raise InputError(
                    f"{path}, {row.place}: {what} {brief(value, 200)} is more than plain text in one line; expected "
                    "that, and every quote closed"
                )
        file = os.path.normpath(folder / row.path)
        if file in seen:
            raise InputError(
                f"{path}, {row.place}: {brief(row.path, 200)} again, as on {seen[file]}; expected each image once"
            )
        seen[file] = row.place
        if not missing and not os.path.isfile(file):
            gone.append(row)
    if gone:
        more = f", and {len(gone) - 1} more are missing" if len(gone) > 1 else ""
        name = brief(gone[0].path, 200)
        raise InputError(
            f"{path}, {gone[0].place}: {_what_is_at(folder / gone[0].path, name)}{more}; "
            f"expected paths relative to {folder}, or absolute ones; or leave them out with --skip-bad"
        )


def _what_is_at(file: Path, name: str) -> str:
    """Why a file of a list is none."""
    try:
        file.stat()
    except FileNotFoundError:
        return f"no file {name}"
    except OSError as error:  # a folder on the way that may not be entered
        return f"{name} cannot be read ({error.strerror})"
    return f"no file {name} ({kind_of(file)})"


def _row(path: Path, place: str, values: dict[str, str]) -> _Row:
    label = class_called(values["label"], f"{path}, {place}")
    if "split" not in values:
        return _Row(place, values["path"], label, "all")
    split = split_called(values["split"])
    if split is None:
        raise InputError(f"{path}, {place}: split {brief(values['split'])}; expected train, val or test")
    return _Row(place, values["path"], label, split)


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Which column is which: ``path``, ``label``, and ``split`` where there is one."""
    words = [word.strip().lower() for word in header]
    found = {}
    for role, known in _COLUMNS.items():
        at = [i for i, word in enumerate(words) if word in known]
        at = at or [i for i, word in enumerate(words) if word in _COLUMNS_ELSE.get(role, ())]
        if len(at) > 1:
            raise InputError(f"{path}: columns {listing(header[i] for i in at)} all mean the {role}; expected one")
        if at:
            found[role] = at[0]
    lacking = [role for role in ("path", "label") if role not in found]
    if lacking:
        raise InputError(f"{path}: no column for {' and '.join(lacking)}, got {listing(header)}; expected {_EXPECTED}")
    return found


def _text_rows(path: Path) -> Iterator[_Row]:
    text = _text(path)
    # The separator that divides the header into the most columns; of equals, the one of the file's suffix.
    separators = "\t,;" if path.suffix.lower() == ".tsv" else ",;\t"
    delimiter = max(separators, key=text.lstrip().splitlines()[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    columns: dict[str, int] = {}
    while True:
        place = f"line {reader.line_num + 1}"  # where the row begins: a quoted value may span lines
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{path}, {place}: {error}; expected every quote closed, and doubled inside") from error
        if not any(cells):
            continue
        if not header:
            header, columns = cells, _columns(path, cells)
        elif len(cells) != len(header):
            raise InputError(
                f"{path}, {place}: {len(cells)} values, expected {len(header)} as in the header; "
                "a value with the separator in it stands in quotes"
            )
        else:
            yield _row(path, place, {role: cells[i] for role, i in columns.items()})


def _text(path: Path) -> str:
    """The file as text, without the mark that some programs put at its beginning."""
    try:
        content = read(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected {_EXPECTED}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: no UTF-8; expected the file saved as UTF-8") from error
    if not text.strip():
        raise InputError(f"{path}: an empty file; expected {_EXPECTED}")
    return text


def _parquet_rows(path: Path) -> Iterator[_Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"{path}: pyarrow, which reads Parquet, is not installed; expected it (pip install 'convit[hub]'), or .csv"
        ) from error
    try:
        with opened(path) as stream, pyarrow.parquet.ParquetFile(stream) as file:
            header = file.schema_arrow.names
            columns = _columns(path, header)
            table = file.read(columns=[header[i] for i in columns.values()])
            values = {role: _plain(path, header[i], table.column(header[i])) for role, i in columns.items()}
    except (OSError, LookupError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: not readable as Parquet ({one_line(error)}); expected a .parquet file") from error
    for number, cells in enumerate(zip(*values.values(), strict=True), start=1):
        yield _row(path, f"row {number}", dict(zip(values, cells, strict=True)))


def _plain(path: Path, name: str, column: Any) -> list[str]:
    """A column's values as text; an empty one where there is none."""
    from pyarrow import types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    if not (any(is_text(kind) for is_text in texts) or types.is_integer(kind)):
        raise InputError(f"{path}: column {name!r} holds {kind}; expected text, or whole numbers")
    return ["" if value is None else str(value).strip() for value in column.to_pylist()]


def _takes(data: str) -> bool:
    path = path_of(data)
    return path.suffix.lower() in SUFFIXES and path.exists() and not path.is_dir()


TABLE = SourceKind(takes=_takes, open=open_table, expected="a .csv, .tsv or .parquet list")
