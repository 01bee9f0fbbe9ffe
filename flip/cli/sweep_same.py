"""Values of a sweep that changed nothing: runs that ended with the same weights."""

from collections.abc import Iterator, Sequence

from flip.cli.compose import split
from flip.cli.sweep_notes import Note


def without_effect(notes: Sequence[Note]) -> Iterator[str]:
    """One sentence for each digest that several runs have, with the values in which they differ.

    A key that is to change no weights (`federation`) is named like any other: that may be what the sweep was for.
    """
    alike: dict[str, list[Note]] = {}
    for note in notes:
        if digest := str(note.result.get("digest") or ""):
            alike.setdefault(digest, []).append(note)
    for digest, same in alike.items():
        if len(same) > 1:
            numbers = ", ".join(f"[{note.number}]" for note in same)
            values = "; ".join(_differing(same)) or "no value"
            yield f"{numbers} have the same weights (digest {digest[:12]}): without effect on them is {values}"


def _differing(notes: Sequence[Note]) -> Iterator[str]:
    """Each key whose value is not the same in all of these runs, with its values."""
    read = [{key: value or "" for _, key, value in map(split, note.overrides)} for note in notes]
    for key in dict.fromkeys(key for values in read for key in values):
        found = list(dict.fromkeys(values.get(key, "") for values in read))
        if len(found) > 1:
            yield f"{key}={', '.join(found)}"
