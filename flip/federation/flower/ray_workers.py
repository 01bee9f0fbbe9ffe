"""Ray, on which Flower's simulation runs: started by us, so that its workers import nothing from the working folder.

Contract checked against ray 2.55.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from flip.errors import StudyFailed
from flip.signals import Interrupted, install

TOO_LATE = "timed out during startup"  # in what Ray raises
TRIES = 4  # on a machine that five test processes shared, two of 30 s were too few


@contextmanager
def few_daemons() -> Iterator[None]:
    """Have Ray start neither its autoscaler nor what hands its workers' logs on: `ray.init` has no word for it."""
    from ray._private import parameter

    full: Any = parameter.RayParams
    parameter.RayParams = partial(full, no_monitor=True, include_log_monitor=False)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        parameter.RayParams = full  # type: ignore[misc]


def read_token() -> None:
    """Have Ray read from the environment whether it asks for a token, and which: it does so once, when it is imported,
    and a notebook may have imported it long ago."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # compiled

    AuthenticationTokenLoader.instance().reset_cache()
    Config.initialize("")


@contextmanager
def import_path() -> Iterator[None]:
    """Have what is started import from where we do. As Ray's `runtime_env` it would keep each worker waiting for a
    process that sets environments up, and those that Ray starts beforehand would not be used."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def start(begin: Callable[[], object]) -> None:
    """Start Ray, up to `TRIES` times where the machine was too busy for the 30 seconds that it takes.

    Raises StudyFailed where it still is.
    """
    import ray

    for number in range(1, TRIES + 1):
        try:
            begin()
            return
        except Exception as error:  # Ray's is told by its words alone, and how long it waits stands in its code
            if TOO_LATE not in str(error):
                raise
            if number == TRIES:
                raise StudyFailed(
                    f"Ray, on which Flower's simulation runs, did not start within its 30 seconds, {TRIES} times: "
                    "this machine is too busy. Run again when less runs beside it, or by federation=inprocess, to the "
                    "same weights"
                ) from error
            ray.shutdown()


@contextmanager
def workers(number: int, temporary: str) -> Iterator[None]:
    """Run Ray with so many workers, its files in a folder.

    Flower would start it with the working folder as the first to import from, whatever PYTHONSAFEPATH says: a
    `statistics.py` of somebody's there would run at each site.
    """
    import ray
    from ray.job_config import JobConfig

    class Job(JobConfig):
        def _runtime_env_has_working_dir(self) -> bool:
            return True  # else Ray adds the folder that it was started in

    try:
        read_token()
        with few_daemons(), import_path():
            start(
                partial(
                    ray.init,
                    num_cpus=number,
                    include_dashboard=False,
                    log_to_driver=False,
                    job_config=Job(),
                    _temp_dir=temporary,
                )
            )
        install()  # Ray has its own handler of SIGTERM
        yield
    except SystemExit as ended:  # by that handler, while Ray starts
        raise Interrupted(signal.SIGTERM) from ended
    finally:
        ray.shutdown()
