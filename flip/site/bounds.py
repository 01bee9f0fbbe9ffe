"""What a study may take of a site before it has taken it: numbers of a model, steps, persons of a batch, seconds."""

import faulthandler
import logging
import multiprocessing
import os
import resource
import statistics
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flip.config.policy import Policy
from flip.errors import UserError
from flip.messages import Fault
from flip.processes import every
from flip.site.disclosure import enough
from flip.site.refusal import Refusal
from flip.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    import torch

Refused = tuple[Fault, str]
"""What a Refusal is made of."""

PASSING = 4  # numbers made while a model is built, of those that it then holds: initializations take copies
GRACE = 5.0  # seconds that the log's last line may take before the process is ended without it
ENDED = 70  # exit status of a process whose task took too long, or too much memory
LOOK = 0.1  # seconds between two looks at the memory that a task takes
GIGABYTE = 10**9


def refused(why: str) -> Refusal:
    """The site's no by a rule of its own, which its log names."""
    return Refusal(Fault.REFUSED_RULE, why)


@contextmanager
def bounded_numbers(policy: Policy) -> Iterator[None]:
    """Build a model within; Raises Refusal before a layer takes memory for more numbers than the policy permits.

    What a constructor makes from nothing is made without values first (device "meta"), and counted.
    """
    if policy.maximum_parameters is None:
        yield
        return
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    most, made = policy.maximum_parameters, 0
    stopped: list[Refusal] = []

    class Counted(TorchDispatchMode):
        def __torch_dispatch__(
            self,
            func: Callable[..., torch.Tensor],
            types: object,
            args: Sequence[object] = (),
            kwargs: Mapping[str, object] | None = None,
        ) -> object:
            nonlocal made
            given = kwargs or {}
            if "device" in given and not any(isinstance(each, torch.Tensor) for each in args):
                numbers = func(*args, **{**given, "device": torch.device("meta"), "pin_memory": False}).numel()
                made += numbers
                if numbers > most or made > PASSING * most:
                    stopped.append(refused(f"policy.maximum_parameters={most}: it makes an array of {numbers} numbers"))
                    raise stopped[0]
            return func(*args, **given)

    try:
        with Counted():  # type: ignore[no-untyped-call]
            yield
    except UserError as error:  # what a constructor raises becomes one
        raise stopped[0] if stopped else error from None


def refuse_size(policy: Policy, module: "torch.nn.Module", strategy: FedAvg) -> None:
    """Raises Refusal for a model or study larger than the policy permits."""
    numbers = sum(tensor.numel() for tensor in module.state_dict().values())
    if policy.maximum_parameters is not None and numbers > policy.maximum_parameters:
        raise refused(f"policy.maximum_parameters={policy.maximum_parameters}: the model has {numbers} numbers")
    if policy.maximum_rounds is not None and strategy.rounds > policy.maximum_rounds:
        raise refused(f"policy.maximum_rounds={policy.maximum_rounds}: the study has {strategy.rounds} rounds")


def few_persons(policy: Policy, module: "torch.nn.Module", trained: int) -> Refused | None:
    """Why the site refuses to train on so many persons: fewer than the policy permits, at all or for a linear model of
    this size; None where it does not, and where nobody is trained on."""
    if trained and not enough(trained, policy.minimum_cell):
        return Fault.REFUSED_FEW_PERSONS, f"fewer persons to train on than minimum_cell: {policy.minimum_cell}"
    free = sum(each.numel() for each in module.parameters() if each.requires_grad)
    if trained and is_linear(module) and free * policy.persons_per_parameter > trained:
        return Fault.REFUSED_RULE, (
            f"policy.persons_per_parameter={policy.persons_per_parameter}: a linear model of {free} parameters on "
            f"{trained} persons"
        )
    return None


def is_linear(module: "torch.nn.Module") -> bool:
    """Whether all that a model trains is one linear layer: its weights are sums over persons, which can be solved."""
    import torch

    owners = {type(each) for each in module.modules() if any(True for _ in each.parameters(recurse=False))}
    layers = [each for each in module.modules() if isinstance(each, torch.nn.Linear)]
    return len(layers) == 1 and owners <= {torch.nn.Linear}


def refuse_steps(policy: Policy, steps: int, *, rounds: int = 1) -> None:
    """Raises Refusal where a fit of so many rounds takes more optimizer steps than the policy permits."""
    if policy.maximum_steps is not None and steps > policy.maximum_steps * rounds:
        raise refused(f"policy.maximum_steps={policy.maximum_steps}: the fit has {steps} steps in {rounds} rounds")


def refuse_batches(policy: Policy, persons: Sequence[int]) -> None:
    """Raises Refusal where half of the batches of a fit, or more, were of fewer persons than the policy asks for.

    The last batch of a pass holds what is left, which may be one row.
    """
    if persons and statistics.median(persons) < policy.minimum_batch:
        raise refused(
            f"policy.minimum_batch={policy.minimum_batch}: half of the batches were of "
            f"{statistics.median(persons):g} persons or fewer"
        )


@contextmanager
def time_limit(seconds: float | None, log: logging.Logger, home: Path) -> Iterator[None]:
    """End this process, with a line in the site's log, where what happens within takes longer; None: no limit.

    A deployed site says so from another process (`flip.federation.silo_process`), a simulated one is lost. A timer
    writes the line; where Python's own lock is held by what runs, the interpreter's watchdog ends the process without
    it, and adds where it was.
    """
    if seconds is None:
        yield
        return

    def over() -> None:
        log.error("policy.maximum_seconds=%g: the task took longer, and this process ends", seconds)
        os._exit(ENDED)

    timer = threading.Timer(seconds, over)
    timer.daemon = True
    with os.fdopen(os.open(home / "site.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w") as file:
        faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=file)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            faulthandler.cancel_dump_traceback_later()


@contextmanager
def memory_limit(gigabytes: float | None, log: logging.Logger) -> Iterator[None]:
    """End this process, with a line in the site's log, where it takes more memory than so much; None: no limit.

    What counts is what the process holds of the machine's memory, looked at ten times a second; a device's own memory
    is not in it. What follows is as with `time_limit`.
    """
    if gigabytes is None:
        yield
        return

    def look() -> None:
        if (held := held_memory()) > gigabytes * GIGABYTE:
            log.error("policy.maximum_memory=%g: the task took %.3g, and this process ends", gigabytes, held / GIGABYTE)
            os._exit(ENDED)

    with every(LOOK, look):
        yield


def held_memory() -> float:
    """The bytes that this process and those of its other devices hold; where the system does not tell that, the most
    that it has held."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        for child in multiprocessing.active_children():
            with suppress(OSError):  # it has ended
                pages += int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
    except OSError:
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # macOS, in bytes
    return float(pages * resource.getpagesize())
