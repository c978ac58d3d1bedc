"""A file of options: ``name: value`` in YAML; the file is not trusted.

Imports nothing heavy.
"""

import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from convit.errors import InputError, one_line
from convit.files import opened
from convit.options import Options

_MOST_BYTES = 1 << 20
_MOST_NAMES = 1000
"""Ten times those of a config.yaml; PyYAML takes half a minute for 100,000."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The options in a YAML file: names and values, or lists of values. The file is not trusted.

    Raises:
        InputError: no such file; not YAML; anything but a flat mapping: deeper nesting, tags of Python, anchors, a name
            twice.
    """
    import yaml

    wanted = "a YAML file of options, 'name: value', such as the config.yaml of a run"
    try:
        with opened(path) as stream:
            text = stream.read(_MOST_BYTES + 1).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"config: {path}: cannot be read ({error.strerror}); expected {wanted}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"config: {path}: no UTF-8; expected {wanted}") from error
    if len(text) > _MOST_BYTES:
        raise InputError(f"config: {path}: more than {_MOST_BYTES} bytes; expected {wanted}")
    try:
        _check_flat(yaml.parse(text, Loader=yaml.SafeLoader), path, wanted)
        loaded = yaml.load(text, Loader=_loader())
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"config: {path}: not YAML ({one_line(error)}); expected {wanted}") from error
    if not isinstance(loaded, dict):
        found = "nothing in it" if loaded is None else f"a {type(loaded).__name__}"
        raise InputError(f"config: {path}: {found}; expected {wanted}")
    return loaded


def _check_flat(events: Iterable[Any], path: Path, wanted: str) -> None:
    """Before anything is made of the file: it is no more than options need."""
    import yaml

    depth, names, is_name = 0, set(), True
    for event in events:
        line = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise InputError(f"config: {path}, {line}: an anchor; expected {wanted}, without anchors")
        if getattr(event, "tag", None):
            raise InputError(f"config: {path}, {line}: the tag {event.tag[:60]!r}; expected {wanted}, without tags")
        if depth == 1 and is_name and isinstance(event, yaml.ScalarEvent):
            if event.value in names:
                raise InputError(f"config: {path}, {line}: {event.value[:80]!r} twice; expected each option once")
            if event.value == "<<" and not event.style:
                raise InputError(f"config: {path}, {line}: '<<', other options in it; expected {wanted}")
            names.add(event.value)
            if len(names) > _MOST_NAMES:
                raise InputError(f"config: {path}: more than {_MOST_NAMES} names; expected {wanted}")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > 2:
                raise InputError(f"config: {path}, {line}: values inside values; expected {wanted}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth == 1 and isinstance(event, yaml.ScalarEvent | yaml.SequenceEndEvent | yaml.MappingEndEvent):
            is_name = not is_name


def _loader() -> Any:
    """PyYAML's safe one; as people do, it takes 1e-3 for a number, and 1:30 or a number of 100 digits for none; nor
    010, which is 8 in YAML 1.1 and 10 in YAML 1.2."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_NUMBER), list("-+0123456789."))

    def plain(read: Any) -> Any:
        def value(loader: Any, node: Any) -> Any:
            none = ":" in node.value or len(node.value) > 99 or _OCTAL.fullmatch(node.value)
            return node.value if none else read(loader, node)

        return value

    Loader.add_constructor("tag:yaml.org,2002:float", plain(lambda _, node: _float(str(node.value))))
    Loader.add_constructor("tag:yaml.org,2002:int", plain(yaml.SafeLoader.construct_yaml_int))
    return Loader


def _float(text: str) -> float:
    special = {".inf": "inf", "-.inf": "-inf", "+.inf": "inf", ".nan": "nan"}
    return float(special.get(text.lower(), text.replace("_", "")))


_NUMBER = r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+"
"""What our loader takes for a number besides what PyYAML does; a text of this form is written in quotes."""

_OCTAL = re.compile(r"[-+]?0[0-9_]+")


def to_yaml(options: Options, without: Container[str] = ()) -> str:
    """All options but some, for :func:`read_yaml`."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_NUMBER), list("-+0123456789."))
    values = {name: value for name, value in options.to_dict().items() if name not in without}
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True)
