"""Which arrays of a file become which of a model: by name and shape, with one prefix exchanged where more fit so."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flip.errors import first
from flip.messages import Payload

if TYPE_CHECKING:
    import torch

DEEPEST = 4  # parts of a name that a prefix may have, as in `encoders.image.encoder.network.`
ADAPTED = ".base_layer."  # in the name of a layer that has gained adapters (peft), and not in the file of its encoder
SHOWN = 30  # names of a kind that are told; the rest is counted


@dataclass(frozen=True)
class Match:
    """What of a file becomes weights of a model.

    Attributes:
        taken: arrays by the model's own names, in its types.
        left_out: names of the file's that the model does not have.
        differing: by the model's name the file's shape and its own.
        missing: names of the model's for which the file has nothing, the differing ones not among them.
        prefixes: what the file's names begin with, and what stands in its place in the model's; both may be empty.
    """

    taken: Payload
    left_out: list[str]
    differing: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    missing: list[str]
    prefixes: tuple[str, str]

    def lines(self) -> Iterator[str]:
        """The match in words, a line each."""
        before, after = self.prefixes
        if before != after:
            yield f"names: '{before or '(nothing)'}' of the file's is '{after or '(nothing)'}' in the model's"
        yield f"taken: {_several(list(self.taken))}"
        yield f"left out, not in the model: {_several(self.left_out)}"
        shapes = [f"{name} ({list(file)} in the file, {list(own)})" for name, (file, own) in self.differing.items()]
        yield f"of another shape, so seeded: {_several(shapes)}"
        yield f"not in the file, so seeded: {_several(self.missing)}"


def _several(names: list[str]) -> str:
    return f"{len(names)}{': ' if names else ''}{first(names, SHOWN)}"


def match(own: Payload, given: Payload) -> Match:
    """The arrays of `given` that a model of the arrays `own` can take; the same at every party.

    A layer that has gained adapters takes what the file has under the name that it had without them.

    One prefix of the file's names is taken off, and one of the model's put there, if more arrays fit so in name and
    shape than as they are; of pairs that fit equally many the shortest, then the first by name.
    """
    plain = {name.replace(ADAPTED, "."): name for name in own}
    if not any(ADAPTED in name for name in given) and len(plain) == len(own):
        names, own = plain, {short: own[name] for short, name in plain.items()}
    else:
        names = {name: name for name in own}
    pairs = [(before, after) for before in prefixes(given) for after in prefixes(own)]
    best = max(pairs, key=lambda pair: (_fitting(own, given, *pair), -len(pair[0]) - len(pair[1])))
    renamed = {best[1] + name.removeprefix(best[0]): name for name in given if name.startswith(best[0])}
    same = {name for name in own if name in renamed and own[name].shape == given[renamed[name]].shape}
    other = [name for name in sorted(own) if name in renamed and name not in same]
    used = {renamed[name] for name in (*same, *other)}
    return Match(
        taken={names[name]: np.asarray(given[renamed[name]]).astype(own[name].dtype) for name in sorted(same)},
        left_out=sorted({*given} - used),
        differing={names[name]: (given[renamed[name]].shape, own[name].shape) for name in other},
        missing=sorted(names[name] for name in {*own} - {*same, *other}),
        prefixes=best,
    )


def begin_from(module: "torch.nn.Module", given: Payload | None) -> None:
    """Load into a module what it can take of given weights; the others stay as they are, as do all without any."""
    from flip.messages.weights import load_arrays, to_arrays

    if given is not None:
        load_arrays(module, match(to_arrays(module), given).taken)


def prefixes(arrays: Payload) -> list[str]:
    """Beginnings of the names that end at a dot, the empty one first."""
    parts = [name.split(".")[:-1] for name in arrays]
    found = {".".join([*each[:depth], ""]) for each in parts for depth in range(1, min(len(each), DEEPEST) + 1)}
    return ["", *sorted(found)]


def _fitting(own: Payload, given: Payload, before: str, after: str) -> int:
    names = ((after + name.removeprefix(before), name) for name in given if name.startswith(before))
    return sum(mine in own and own[mine].shape == given[name].shape for mine, name in names)
