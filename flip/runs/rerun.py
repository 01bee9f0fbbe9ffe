"""What a run folder holds so that `python -m flip --config-dir RUN --config-name run` runs it again.

`run.yaml` is a primary configuration without any site's folder. The sites' own files and the backend's settings as they
were lie beside it, as options of the groups `sites` and `federation`, so another backend can be chosen for the rerun.
A run moves: what was declared below `${paths.data_dir}` stays so, and a relative folder of runs is where it is started.
"""

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from flip.config.site_file import PLACES
from flip.config.study import Study, plain
from flip.files import conf_folder

MANIFEST = "manifest.json"
"""What travels to every site, as `flip site review` reads it."""
PRIVATE = ("sites/", "paths/")
"""What of these files is for the owner's eyes alone: where the sites' data lie."""
DECLARED = re.compile(r"\$\{paths\.(?:data|demo)_dir\}[^$]*")
FROM_ENVIRONMENT = "${oc.env:FLIP_DATA_DIR"


class Unresolved(str):
    """A text that is written as it is: what looks like an interpolation is one."""


def run_files(study: Study) -> dict[str, str]:
    """What a run folder needs to be run again: text by relative path."""
    written = study.declared.get("sites", {})
    own = {
        name: {"trains": site.trains} if study.live else as_declared(plain(site), written.get(name))
        for name, site in study.sites.items()
    }
    sites = {f"sites/{name}.yaml": f"# @package sites.{name}\n" + to_yaml(values) for name, values in own.items()}
    settings = "# How this run was federated.\n" + to_yaml(study.federation)
    files = {"run.yaml": run_yaml(study), f"federation/{study.backend}.yaml": settings, MANIFEST: study.manifest_text}
    return files | {PLACES.as_posix(): paths_yaml(study)} | sites


def as_declared(value: Any, declared: Any) -> Any:
    """A site's value, or what it was written as where that is a place below `${paths.data_dir}` or the like."""
    if isinstance(declared, str) and DECLARED.fullmatch(declared):
        return Unresolved(declared)
    if isinstance(value, Mapping) and isinstance(declared, Mapping):
        return {key: as_declared(each, declared.get(key)) for key, each in value.items()}
    return value


def paths_yaml(study: Study) -> str:
    """Where the cohorts lie: FLIP_DATA_DIR of wherever the run is run again, if it decided here; else as now."""
    here = study.paths.data_dir
    if str(study.declared.get("paths", {}).get("data_dir", "")).startswith(FROM_ENVIRONMENT):
        quoted = here.replace("\\", "\\\\").replace("'", "\\'")
        here = Unresolved(f"{FROM_ENVIRONMENT},'{quoted}'}}")
    return "# @package paths\n" + to_yaml({"data_dir": here, "demo_dir": study.paths.demo_dir})


def run_yaml(study: Study) -> str:
    """The run again, as a primary configuration; no site's folder stands in it."""
    primary = OmegaConf.to_container(OmegaConf.load(conf_folder() / "config.yaml"), resolve=False)
    assert isinstance(primary, dict)
    own = [each for each in primary["defaults"] if isinstance(each, dict) and "hydra" in next(iter(each))]
    head = {
        "defaults": [
            "schema",
            {"paths": "run"},
            {"federation": study.backend},
            {"sites": list(study.sites)},
            "_self_",
            *own,
        ]
    }
    ours = ("mechanisms", "engine", "code", "given")
    body = {key: value for key, value in study.manifest.items() if key not in ours}
    body["privacy"] = {name: study.manifest["privacy"][name] for name in study.manifest["mechanisms"]}
    body |= {
        "job": study.job,
        "resume_from": str(study.resume_from) if study.resume_from else None,
        "init": str(study.init) if study.init else None,
        "model_from": [str(path) for path in study.model_from] or None,
        "given_at": study.given_at,
        "companions": {name: str(path) for name, path in study.companions.items()},
        "baselines": plain(study.baselines),
        "tracking": study.tracking,
    }
    runs = str(study.declared.get("paths", {}).get("runs", study.paths.runs))
    body["paths"] = {"runs": study.paths.runs if "${" in runs else runs}  # a relative one: where the rerun is started
    return (
        "# This run again: python -m flip --config-dir THIS_FOLDER --config-name run\n"
        + to_yaml(head) + to_yaml(body) + OmegaConf.to_yaml(OmegaConf.create({"hydra": primary["hydra"]}))
    )  # fmt: skip


def to_yaml(values: Mapping[str, object], indent: int = 0) -> str:
    """Plain values as YAML that reads back the same, whatever looks like an interpolation included."""
    return _indent(OmegaConf.to_yaml(OmegaConf.create(_escape(dict(values)))), indent)


def _escape(value: Any) -> Any:
    if isinstance(value, Unresolved):
        return str(value)
    if isinstance(value, str):
        return value.replace("${", "\\${")
    if isinstance(value, Mapping):
        return {key: _escape(each) for key, each in value.items()}
    return [_escape(each) for each in value] if isinstance(value, list) else value


def _indent(text: str, width: int) -> str:
    return "".join(" " * width + line for line in text.splitlines(keepends=True))
