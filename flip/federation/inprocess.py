"""The reference transport: the sites on this machine, one after the other in this process, or some in parallel.

With one worker everything happens in the coordinator's process, where a debugger can step through it. With more, each
worker is a forked process that answers for its sites; a fork starts with all that is imported. Tasks and replies pass
as files in a private folder, which both sides map: a large one is in nobody's memory twice.
"""

import itertools
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from flip.federation import Ask, Fault, Reply, Result, Task
from flip.federation.limits import Limits
from flip.federation.spool import Arrival, in_order, spool
from flip.federation.wire import reply_parts, task_parts, unpack_task
from flip.settling import load_site
from flip.silo import Silo
from flip.weights import mapped


@dataclass
class InProcess(Limits):
    """Runs all sites on this machine without any network.

    Args:
        timeout: seconds that one task may take at the slowest site, above 0; only enforced with several workers.
        workers: processes that sites are spread over; 1 keeps all in the coordinator's own.
    """

    workers: int = 1

    def run(self, program: Callable[[Ask], Result], sites: Mapping[str, Path]) -> Result:
        """Run the coordinator's program over the sites' files."""
        if self.workers == 1:
            return program(ask_silos(open_silos(sites)))
        with (
            tempfile.TemporaryDirectory(prefix="flip-sites-") as folder,
            forked(sites, self.workers, Path(folder)) as pipes,
        ):
            return program(ask_pipes(pipes, self.timeout, Path(folder)))


def open_silos(sites: Mapping[str, Path]) -> dict[str, Silo]:
    """A silo per site, from the site's own file; its home is the folder beside the file, of the same name."""
    return {name: Silo(name, load_site(path), path.with_suffix("")) for name, path in sites.items()}


def ask_silos(silos: Mapping[str, Silo]) -> Ask:
    """An `Ask` that calls each silo in turn."""

    def ask(task: Task, names: Sequence[str]) -> Iterator[Reply]:
        for name in names:
            yield silos[name].answer(task)

    return ask


@contextmanager
def forked(sites: Mapping[str, Path], workers: int, folder: Path) -> Iterator[dict[str, Connection]]:
    """Start the workers, sites dealt out to them in turn; yields each site's pipe, and ends the workers."""
    fork = multiprocessing.get_context("fork")
    pipes: dict[str, Connection] = {}
    processes = []
    names = sorted(sites)
    for number in range(min(workers, len(names))):
        here, there = fork.Pipe()
        mine = {name: sites[name] for name in names[number::workers]}
        process = fork.Process(target=work, args=(there, mine, folder, [here, *pipes.values()]), daemon=True)
        process.start()
        there.close()
        pipes |= dict.fromkeys(mine, here)
        processes.append(process)
    try:
        yield pipes
    finally:
        for pipe in set(pipes.values()):
            pipe.close()
        for process in processes:
            process.terminate()
            process.join()


def work(pipe: Connection, sites: Mapping[str, Path], folder: Path, inherited: Sequence[Connection]) -> None:
    """In a worker: answer tasks, each the name of a site and a file, until the coordinator's end is closed.

    `inherited` are the coordinator's ends that the fork copied: left open, they would keep a worker waiting for ever.
    """
    for copy in set(inherited):
        copy.close()
    silos = open_silos(sites)
    for number in itertools.count():
        try:
            name, task = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        reply = silos[name].answer(unpack_task(mapped(folder / task)))
        file = spool(folder / f"{os.getpid()}-{number}", reply_parts(reply))
        pipe.send_bytes(json.dumps([name, file.name]).encode())


def ask_pipes(pipes: Mapping[str, Connection], timeout: float, folder: Path) -> Ask:
    """An `Ask` over the workers' pipes. A worker that dies or is late loses its sites for the rest of the run."""
    lost: dict[Connection, Fault] = {}
    numbers = itertools.count()

    def arrivals(task: Path, names: Sequence[str]) -> Iterator[Arrival]:
        waiting: dict[Connection, list[str]] = {}
        for name in names:
            waiting.setdefault(pipes[name], []).append(name)
        for pipe, asked in waiting.items():
            if pipe not in lost:
                send(pipe, asked[0], task, lost)
        while open_pipes := [pipe for pipe in waiting if waiting[pipe] and pipe not in lost]:
            answered = wait(open_pipes, timeout)
            ready = [pipe for pipe in open_pipes if pipe in answered]
            for pipe in ready or open_pipes:
                if not ready:
                    lost[pipe] = Fault.TIMEOUT
                    continue
                try:
                    site, file = json.loads(pipe.recv_bytes())
                except (EOFError, ConnectionResetError):
                    lost[pipe] = Fault.LOST
                    continue
                yield site, folder / file
                waiting[pipe].pop(0)
                if waiting[pipe]:
                    send(pipe, waiting[pipe][0], task, lost)
        yield from ((name, lost[pipe]) for pipe, asked in waiting.items() for name in asked)

    def ask(task: Task, names: Sequence[str]) -> Iterator[Reply]:
        file = spool(folder / f"task-{next(numbers)}", task_parts(task))
        try:
            yield from in_order(arrivals(file, names), task, names)
        finally:
            file.unlink()

    return ask


def send(pipe: Connection, name: str, task: Path, lost: dict[Connection, Fault]) -> None:
    """Hand a task to a worker, which may have died."""
    try:
        pipe.send_bytes(json.dumps([name, task.name]).encode())
    except (BrokenPipeError, ConnectionResetError):
        lost[pipe] = Fault.LOST
