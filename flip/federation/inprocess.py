"""The reference transport: the sites on this machine, one after the other in this process, or some in parallel.

With one worker everything happens in the coordinator's process, where a debugger can step through it. With more, each
worker is a forked process that answers for its sites; a fork starts with all that is imported. Tasks and replies pass
as files in a private folder, which both sides map: a large one is in nobody's memory twice.
"""

import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from flip.config.site_file import load_site
from flip.determinism import configure_torch
from flip.federation.answer import answer_parts
from flip.federation.limits import Limits
from flip.federation.spool import Arrival, in_order, spool
from flip.files import mapped
from flip.messages import Ask, Fault, Reply, Result, Task
from flip.messages.wire import task_parts
from flip.processes import end_with_parent
from flip.signals import leave_to_parent
from flip.site.silo import Silo


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
    return {name: Silo(name, load_site(path), path.with_suffix(""), file=path) for name, path in sites.items()}


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
        for process in processes:  # SIGTERM would end one that is in a fit of Lightning's only after its batch
            process.kill()
            process.join()


def work(pipe: Connection, sites: Mapping[str, Path], folder: Path, inherited: Sequence[Connection]) -> None:
    """In a worker: answer tasks, each told by number, site and file, until the coordinator's end is closed.

    `inherited` are the coordinator's ends that the fork copied: left open, they would keep a worker waiting for ever.
    """
    end_with_parent()
    leave_to_parent()
    for copy in set(inherited):
        copy.close()
    # A fork has none of its parent's OpenMP threads, yet waits for them for ever, and a study is built before its own
    # number of threads is set.
    configure_torch(1)
    silos = open_silos(sites)
    while True:
        try:
            number, name, task = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        reply = folder / f"reply-{number}"
        with suppress(FileNotFoundError):  # the question has been given up, and the answer counts for nothing
            spool(reply, answer_parts(silos[name], mapped(folder / task)))
        pipe.send_bytes(json.dumps([number, name, reply.name]).encode())


def ask_pipes(pipes: Mapping[str, Connection], timeout: float, folder: Path) -> Ask:
    """An `Ask` over the workers' pipes, and files in a folder."""
    workers = Workers(pipes, timeout, folder)

    def ask(task: Task, names: Sequence[str]) -> Iterator[Reply]:
        file = spool(folder / f"task-{workers.number}", task_parts(task))
        try:
            yield from in_order(workers.exchange(file, names), task, names)
        finally:
            file.unlink()

    return ask


@dataclass
class Workers:
    """The coordinator's ends of the workers. Each has one question at a time.

    A worker that dies loses its sites for the rest of the run. One that is late loses them for this question; it gets
    the next when it has answered, which counts for nothing then: questions are numbered.
    """

    pipes: Mapping[str, Connection]
    timeout: float
    folder: Path
    number: int = 0
    busy: dict[Connection, int] = field(default_factory=dict)  # with which question
    dead: set[Connection] = field(default_factory=set)

    def exchange(self, task: Path, names: Sequence[str]) -> Iterator[Arrival]:
        """Have the sites answer a task, and yield the answers as they come, or why there is none."""
        first = self.number + 1
        todo: dict[Connection, list[str]] = {}
        for name in names:
            todo.setdefault(self.pipes[name], []).append(name)
        until = dict.fromkeys(todo, time.monotonic() + self.timeout)
        while todo:
            for pipe in todo.keys() - self.busy.keys():
                self._send(pipe, todo[pipe][0], task)
                until[pipe] = time.monotonic() + self.timeout
            ready = wait(todo, max(0.0, min(until[pipe] for pipe in todo) - time.monotonic()))
            now = time.monotonic()
            for pipe in [each for each in todo if each in ready]:
                answer = self._receive(pipe)
                if answer is not None and answer[0] >= first and answer[1] == todo[pipe][0]:
                    yield todo[pipe].pop(0), answer[2]
                elif answer is not None:
                    answer[2].unlink(missing_ok=True)
            for pipe in [each for each in todo if each not in ready and until[each] <= now]:
                yield from ((name, Fault.TIMEOUT) for name in todo.pop(pipe))
            for pipe in todo.keys() & self.dead:
                yield from ((name, Fault.LOST) for name in todo.pop(pipe))
            paused = time.monotonic() - now  # what the loop did meanwhile is not the sites' time
            until = {pipe: limit + paused for pipe, limit in until.items()}
            todo = {pipe: left for pipe, left in todo.items() if left}

    def _send(self, pipe: Connection, name: str, task: Path) -> None:
        self.number += 1
        self.busy[pipe] = self.number
        try:
            pipe.send_bytes(json.dumps([self.number, name, task.name]).encode())
        except (BrokenPipeError, ConnectionResetError):
            self.dead.add(pipe)

    def _receive(self, pipe: Connection) -> tuple[int, str, Path] | None:
        """What a worker says, if it is the answer to its question."""
        try:
            number, name, file = json.loads(pipe.recv_bytes())
        except (EOFError, ConnectionResetError):
            self.dead.add(pipe)
            return None
        if number != self.busy.get(pipe):
            return None
        del self.busy[pipe]
        return number, name, self.folder / file
