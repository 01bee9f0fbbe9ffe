"""What FLARE's server and clients are made of, in every kit: its own parts by name, and no code but ours."""

from collections.abc import Mapping
from pathlib import Path

from flip.federation.nvflare.app import CONTROLLER, EXECUTOR, LATE_SITES
from flip.federation.nvflare.roster import GUARD

SILENCE = 20.0  # seconds without a sign of life after which the server takes a site for lost


def allowed() -> dict[str, object]:
    """All the code that a job may name, in every kit."""
    return {"format_version": 2, "class_list_enforcement_mode": "enforce", "class_allow_list": [CONTROLLER, EXECUTOR]}


def server_resources(kit: Path) -> Mapping[str, object]:
    """What FLARE's server is made of: everything that it stores lies in its kit."""
    storage = "nvflare.app_common.storages.filesystem_storage.FilesystemStorage"
    snapshots = {"root_dir": str(kit / "snapshots"), "uri_root": "/"}
    persistor = "nvflare.app_common.state_persistors.storage_state_persistor.StorageStatePersistor"
    return {
        **allowed(),
        "servers": [
            {
                "admin_storage": "transfer",
                "max_num_clients": 1000,
                "heart_beat_timeout": SILENCE,
                "download_job_url": "http://download.invalid/",
                "admin_timeout": 10.0,
            }
        ],
        "snapshot_persistor": {
            "path": persistor,
            "args": {"uri_root": "/", "storage": {"path": storage, "args": snapshots}},
        },
        "components": [
            {
                "id": "job_scheduler",
                "path": "nvflare.app_common.job_schedulers.job_scheduler.DefaultJobScheduler",
                "args": {"max_jobs": 4},
            },
            {
                "id": "job_manager",
                "path": "nvflare.apis.impl.job_def_manager.SimpleJobDefManager",
                "args": {"uri_root": str(kit / "jobs"), "job_store_id": "job_store"},
            },
            {"id": "job_store", "path": storage},
            {
                "id": "process_launcher",
                "path": "nvflare.app_common.job_launcher.server_process_launcher.ServerProcessJobLauncher",
            },
            {"id": "late_sites", "path": LATE_SITES},
            {"id": "roster", "path": GUARD, "args": {"kit": str(kit)}},
        ],
    }


def site_resources() -> Mapping[str, object]:
    """What FLARE's client is made of; FLARE's own kit would also send the site's error log to the server."""
    gpus = {"num_of_gpus": 0, "mem_per_gpu_in_GiB": 0, "expiration_period": 300}
    return {
        **allowed(),
        "allow_log_streaming": False,
        "client": {"retry_timeout": 30, "compression": "Gzip"},
        "components": [
            {
                "id": "resource_manager",
                "path": "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager",
                "args": gpus,
            },
            {
                "id": "resource_consumer",
                "path": "nvflare.app_common.resource_consumers.gpu_resource_consumer.GPUResourceConsumer",
                "args": {},
            },
            {
                "id": "process_launcher",
                "path": "nvflare.app_common.job_launcher.client_process_launcher.ClientProcessJobLauncher",
                "args": {},
            },
        ],
    }
