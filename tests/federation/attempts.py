"""Attempts to loosen what the owner of a site has written, and rules that the owner makes tighter: one list for all.

`made` tries each of them at one site, through the `Ask` of whatever backend: an attempt is what lies at the site in
place of its file, or what its coordinator asks in place of the study's task. In a simulation `bend_loop` has them made
by the command line's process, in a live federation `bend_server` by the server's.
"""

import base64
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from flip.files import write_atomic
from flip.messages import Ask, Reply, Task

LEAST = "LEAST"  # a variable of the environment that would say how few persons do
LOOSE = {"minimum_persons": 2, "minimum_cell": 1, "persons_per_parameter": 0, "approval": "none", "trackers": None}
DP = {"mechanism": "dp_sgd", "epsilon": 1, "delta": 1e-5}
TOLD = Path("attempts") / "told.json"  # where a live server writes what came of them
ROUND = 2  # in which a simulation makes them: the third, for weights that have moved


@dataclass(frozen=True)
class There:
    """Where an attempt is made, and in place of which task.

    Attributes:
        site: the site's name.
        file: its own file.
        other: the file of another site, whose policy permits the study.
        task: what the coordinator asks, which the site has answered before.
    """

    site: str
    file: Path
    other: Path
    task: Task

    @property
    def values(self) -> dict[str, Any]:
        """What the site's file holds, its policy as rules."""
        found: dict[str, Any] = yaml.safe_load(self.file.read_text())
        stated = found["policy"] if isinstance(found["policy"], dict) else {"minimum_persons": 1, "minimum_cell": 1}
        return {**found, "policy": stated}

    def write(self, values: Mapping[str, object]) -> None:
        """Put a file in the place of the site's."""
        write_atomic(self.file, yaml.safe_dump(dict(values), sort_keys=False).encode())

    def tighten(self, rules: Mapping[str, object]) -> None:
        """Add rules to the site's policy."""
        self.write({**self.values, "policy": {**self.values["policy"], **rules}})


Change = Callable[[There, ExitStack], Task | None]
"""Makes an attempt: changes what lies at the site, or returns the task that is asked instead."""


def rules(**changed: object) -> Change:
    """The owner tightens the policy."""
    return lambda there, _: there.tighten(changed)


def instead(policy: object) -> Change:
    """Another policy in the site's file."""
    return lambda there, _: there.write({**there.values, "policy": policy(there) if callable(policy) else policy})


def asks(change: Callable[[dict[str, Any]], object]) -> Change:
    """A study whose manifest was changed, at a site whose policy refuses the honest one."""

    def made(there: There, _: ExitStack) -> Task:
        there.tighten({"minimum_persons": 5000})
        manifest = json.loads(there.task.manifest)
        change(manifest)
        return replace(there.task, manifest=json.dumps(manifest, sort_keys=True, separators=(",", ":")))

    return made


def told(**params: str | int) -> Change:
    """Parameters of a task, at such a site."""

    def made(there: There, _: ExitStack) -> Task:
        there.tighten({"minimum_persons": 5000})
        return replace(there.task, params={**there.task.params, **params})

    return made


def twice(there: There, _: ExitStack) -> None:
    there.tighten({"minimum_persons": 5000})
    write_atomic(there.file, there.file.read_bytes() + yaml.safe_dump({"policy": LOOSE}).encode())


def places(there: There, stack: ExitStack) -> None:
    """An interpolation of what a run's folder says, and of what somebody has put there."""
    folder = there.file.parent.parent / "paths"
    before = (folder / "run.yaml").read_bytes() if (folder / "run.yaml").exists() else None
    folder.mkdir(exist_ok=True)
    stack.callback(write_atomic, folder / "run.yaml", before) if before else stack.callback(shutil.rmtree, folder)
    write_atomic(folder / "run.yaml", (before or b"") + yaml.safe_dump({"policy": LOOSE}).encode())
    there.write({**there.values, "policy": "${paths.policy}"})


def link(there: There, target: Path) -> None:
    beside = there.file.with_suffix(".link")
    beside.symlink_to(target)
    beside.replace(there.file)


def own_link(there: There, stack: ExitStack) -> None:
    loose = there.file.with_suffix(".loose")
    stack.callback(loose.unlink)
    loose.write_bytes(there.file.read_bytes())
    link(there, loose)


def signed(there: There, stack: ExitStack, *, valid: bool) -> None:
    """Approvals that held once or elsewhere, and one that holds, in the site's folder."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from flip.config.envelope import Envelope, data_of
    from flip.config.site_file import load_site
    from flip.site.approvals import Approval, revoke

    key, manifest = Ed25519PrivateKey.from_private_bytes(b"a" * 32), json.loads(there.task.manifest)
    folder, public = there.file.parent / "approvals", base64.b64encode(key.public_key().public_bytes_raw()).decode()
    there.tighten({"approval": {"keys": {"ada": public}}})
    terms = {"site": there.site, "data": data_of(load_site(there.file)), "manifest": manifest, "free": {}}
    terms |= {"runs": 99, "reason": "test", "ethics": "none", "expires": "2099-12-31"}
    if not folder.exists():
        stack.callback(folder.rmdir)
    folder.mkdir(exist_ok=True)

    def keep(name: str, **changed: object) -> tuple[Path, Envelope]:
        envelope, path = Envelope(**{**terms, "reason": name, **changed}), folder / f"{name}.json"
        path.write_text(Approval(envelope, []).signed("ada", key).text)
        stack.callback(path.unlink)
        return path, envelope

    keep("expired", expires="2020-01-01")
    keep("another study", manifest={**manifest, "seed": -1})
    keep("older code", manifest={**manifest, "code": "0" * 64})
    keep("other data", data="0" * 64)
    keep("another site", site="elsewhere")
    changed, _ = keep("changed", expires="2020-01-01")
    changed.write_text(changed.read_text().replace("2020-01-01", "2099-12-31"))
    stack.callback(revoke(*keep("revoked")).unlink)
    linked, _ = keep("linked")
    linked.rename(folder / "linked.elsewhere")
    linked.symlink_to(folder / "linked.elsewhere")
    stack.callback((folder / "linked.elsewhere").unlink)
    if valid:
        keep("valid")


def carried(there: There, stack: ExitStack) -> Task:
    """An approval that holds, which comes with the study and lies nowhere at the site."""
    with ExitStack() as written:
        signed(there, written, valid=True)
        text = (there.file.parent / "approvals" / "valid.json").read_text()
    manifest = {**json.loads(there.task.manifest), "approval": json.loads(text)}
    return replace(there.task, manifest=json.dumps(manifest, sort_keys=True, separators=(",", ":")))


RULES = "flip.config.policy"
POLICY, RULE, MANIFEST, PROTOCOL = "REFUSED_POLICY", "REFUSED_RULE", "REFUSED_MANIFEST", "REFUSED_PROTOCOL"
ATTEMPTS: Mapping[str, tuple[Change, str | None]] = {
    # What the owner makes tighter; the other site's file goes on to permit it, and so does the environment.
    "more persons": (rules(minimum_persons=5000), "REFUSED_COHORT"),
    "less code": (rules(targets=["models."]), "REFUSED_TARGET"),
    "a mechanism": (rules(privacy=DP), RULE),
    "secure sums": (rules(secure_aggregation="required"), RULE),
    "fewer steps": (rules(maximum_steps=1), RULE),
    "fewer rounds": (rules(maximum_rounds=1), RULE),
    "more sites": (rules(least_sites=3), RULE),
    "smaller moves": (rules(maximum_change=1e-12), "REFUSED_WEIGHTS"),
    "no weights": (rules(releases=["statistics", "metrics"]), RULE),
    "no online tracker": (rules(trackers=[]), RULE),
    "another online tracker": (rules(trackers=["wandb"]), RULE),
    "a misspelt rule": (rules(minimum_person=5000), POLICY),
    # What lies at the site and would have something else say its rules.
    "environment": (rules(minimum_persons=f"${{oc.decode:${{oc.env:{LEAST}}}}}"), POLICY),
    "environment in a key": (rules(**{f"${{oc.env:{LEAST}}}": 1}), POLICY),
    "_target_": (instead({"_target_": f"{RULES}.Policy", **LOOSE}), POLICY),
    "_target_ in a rule": (rules(minimum_persons={"_target_": "builtins.int"}), POLICY),
    "interpolation": (places, POLICY),
    "interpolation of the file's own": (rules(minimum_persons="${policy.minimum_cell}"), POLICY),
    "path": (instead(lambda there: str(there.other)), POLICY),
    "path in a rule": (rules(policy="../other/site.yaml"), POLICY),
    "said twice": (twice, POLICY),
    "link": (own_link, POLICY),
    "another site's file": (lambda there, _: link(there, there.other), POLICY),
    "old approvals": (lambda there, stack: signed(there, stack, valid=False), "REFUSED_APPROVAL"),
    # What a coordinator sends.
    "manifest": (asks(lambda it: it.update(policy="public_data")), MANIFEST),
    "manifest of sites": (asks(lambda it: it.update(sites={"va": {"policy": LOOSE}})), MANIFEST),
    "manifest with a file": (asks(lambda it: it.update(site_file="other/site.yaml")), MANIFEST),
    "manifest of paths": (asks(lambda it: it.update(paths={"policy": "public_data"})), MANIFEST),
    "manifest of further code": (asks(lambda it: it.update(allow_targets=["tests."])), MANIFEST),
    "manifest with _target_": (asks(lambda it: it["dataset"].update(_target_=f"{RULES}.Policy")), "REFUSED_TARGET"),
    "manifest with an interpolation": (asks(lambda it: it["strategy"].update(rounds=f"${{oc.env:{LEAST}}}")), MANIFEST),
    "manifest with a path": (asks(lambda it: it["dataset"].update(root="../other")), "REFUSED_TARGET"),
    "parameter": (told(policy="public_data"), PROTOCOL),
    "parameter of a rule": (told(minimum_persons=1), PROTOCOL),
    "parameter of who a person is": (told(person="row"), PROTOCOL),
    "approval in a manifest": (carried, "REFUSED_APPROVAL"),
    # So that none of the above is refused for another reason than its own.
    "an approval of this study": (lambda there, stack: signed(there, stack, valid=True), None),
    "nothing": (lambda there, _: None, None),
}  # fmt: skip
"""By name what is tried, and the fault that the coordinator is told; None: the site answers."""


@contextmanager
def as_before(file: Path) -> Iterator[ExitStack]:
    """Put a site's file back at the end, and call what else is to be undone."""
    kept = file.with_suffix(".kept")
    shutil.copy2(file, kept)
    with ExitStack() as stack:
        stack.callback(kept.replace, file)
        yield stack


def made(ask: Callable[[Task], Sequence[Reply]], there: There) -> dict[str, str | None]:
    """Make every attempt at a site; what its coordinator was told each time."""
    found = {}
    for name, (change, _) in ATTEMPTS.items():
        with as_before(there.file) as stack:
            (reply,) = ask(change(there, stack) or there.task)
            found[name] = reply.fault.name if reply.fault else None
    return found


def attempting(ask: Ask, site: str, file: Path, other: Path, tells: Path) -> Ask:
    """An `Ask` that makes all attempts once, in a round whose fit the site has answered, and writes what came of it."""

    def asked(task: Task, sites: Sequence[str]) -> Iterator[Reply]:
        yield from ask(task, sites)
        due = task.step == "fit" and task.round >= ROUND and site in sites
        if due and tells.parent.exists() and not tells.exists():
            found = made(lambda task: [*ask(task, [site])], There(site, file, other, task))
            write_atomic(tells, json.dumps(found).encode())

    return asked


def bend_loop(run: Path, site: str, other: str, tells: Path) -> None:
    """In a simulation's process: attempts at `site` of the run that begins."""
    from flip.coordinator.loop import Coordinator

    honest, files = Coordinator.__call__, [run / "sites" / f"{name}.yaml" for name in (site, other)]
    Coordinator.__call__ = lambda loop, ask: honest(loop, attempting(ask, site, *files, tells))


def bend_server(root: Path, site: str, other: str) -> None:
    """In a live server's process: attempts at `site`, once there is the folder of TOLD below `root`."""
    from flip.coordinator import serve as place

    honest, files = place.serve, [root / "kits" / name / "site.yaml" for name in (site, other)]
    place.serve = lambda submission, folder, ask: honest(submission, folder, attempting(ask, site, *files, root / TOLD))
