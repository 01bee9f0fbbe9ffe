"""Whole processes measured in turn: other work on a machine slows both alike, so their ratio holds where seconds do
not."""

import os
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """One process: wall and processor seconds, and the seconds of its rounds alone."""

    wall: float
    processor: float
    rounds: float


@dataclass(frozen=True)
class Program:
    """A command, and how to read from its output or its folder how long its rounds took."""

    name: str
    command: Sequence[str]
    rounds: Callable[[str, Path], float]

    def run(self, folder: Path) -> Measured:
        """Run it on one thread in a folder of its own; it must succeed."""
        folder.mkdir(parents=True)
        before = os.times()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(self.command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        after = os.times()
        processor = after.children_user + after.children_system - before.children_user - before.children_system
        return Measured(after.elapsed - before.elapsed, processor, self.rounds(done.stdout, folder))


def printed(output: str, _: Path) -> float:
    """The number after the word `rounds` that a loop prints."""
    return float(output.split("rounds ")[1].split()[0])


def recorded(_: str, folder: Path) -> float:
    """The seconds that the sites' fits took, from the run's `rounds.jsonl`."""
    from json import loads

    lines = [loads(line) for path in folder.rglob("rounds.jsonl") for line in path.read_text().splitlines()]
    return float(sum(line["seconds"] for line in lines if line["phase"] == "fit"))


def compare(ours: Program, theirs: Program, folder: Path, pairs: int, targets: str) -> None:
    """Run two programs in turn, after one pair that is not counted; print medians, and the ratios with their range."""
    rows = [(ours.run(folder / f"{index}/a"), theirs.run(folder / f"{index}/b")) for index in range(pairs + 1)][1:]
    print(f"{ours.name} against {theirs.name}, {pairs} pairs; target {targets}")
    for figure in ("wall", "processor", "rounds"):
        values = [[getattr(each, figure) for each in row] for row in rows]
        first, second = (statistics.median(column) for column in zip(*values, strict=True))
        ratios = [a / b for a, b in values]
        print(
            f"  {figure:9} {first:6.2f} s {second:6.2f} s  ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )
