"""Ray, on which Flower's simulation runs: started by us, so that its workers import nothing from the working folder.

Contract checked against ray 2.55.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from flip.signals import Interrupted, install


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

    paths = os.pathsep.join(path for path in sys.path if path)
    try:
        ray.init(
            num_cpus=number,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
            job_config=Job(),
            _temp_dir=temporary,
        )
        install()  # Ray has its own handler of SIGTERM
        yield
    except SystemExit as ended:  # by that handler, while Ray starts
        raise Interrupted(signal.SIGTERM) from ended
    finally:
        ray.shutdown()
