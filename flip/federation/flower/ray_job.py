"""What Ray's workers may import from. Contract checked against ray 2.55."""

from ray.job_config import JobConfig


class Job(JobConfig):
    """A job whose workers do not get the working folder as the first place to import from."""

    def _runtime_env_has_working_dir(self) -> bool:
        return True  # else Ray adds the folder that it was started in
