"""What a YAML file says without quotes, and its reader takes for another value than a person does."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml
from omegaconf import OmegaConf

TRUTHS = ("true", "false")
PLAIN = re.compile(r"[-+.0-9][-+.:\w]*|yes|no|on|off", re.IGNORECASE)  # what a reader may take for no text
CODE = re.compile(r"[0-9]+E[0-9]+")  # as those of ICD-11 (1E30, influenza), which are numbers to YAML


def misread(text: str, place: str) -> list[str]:
    """A sentence for each value or key without quotes that is not read as it is written: `yes`, `010` (8), `1:30` (90).

    `place` is the file. Raises yaml.YAMLError for a text that is no YAML.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return [
        f"{key or place} ({place}, line {node.start_mark.line + 1}): {node.value} is read as {_shown(read)}; write "
        f"{_shown(read)}, or '{node.value}' in quotes for the text"
        for key, node in _scalars(root, "")
        if node.style is None and (read := _read(node.value)) is not None
    ]


def _scalars(node: yaml.Node | None, key: str) -> Iterator[tuple[str, yaml.ScalarNode]]:
    """Each scalar, keys too, with the key that it stands at or below."""
    if isinstance(node, yaml.ScalarNode):
        yield key, node
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from _scalars(each, key)
    elif isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _scalars(name, key)
            inner = str(name.value) if isinstance(name, yaml.ScalarNode) else ""
            yield from _scalars(value, f"{key}.{inner}" if key else inner)


def _read(written: str) -> bool | int | float | None:
    """What Hydra reads a plain scalar as, where that is another value than the decimal number or the text written."""
    found = OmegaConf.create(f"[{written}]")[0] if PLAIN.fullmatch(written) and written[-1] != ":" else None
    if isinstance(found, bool):
        return None if written.lower() in TRUTHS else found
    if not isinstance(found, int | float) or re.fullmatch(r"[-+]?\.(inf|nan)", written, re.IGNORECASE):
        return None
    try:
        same = float(written) == found and not CODE.fullmatch(written)
    except ValueError:
        same = False
    return None if same else found


def _shown(value: bool | int | float) -> str:
    return str(value).lower()
