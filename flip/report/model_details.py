"""What a model card says of the model itself: what it is, what it is for, how to cite it."""

from collections.abc import Iterator, Mapping

from flip.config.outcome_names import outcome_names
from flip.config.targets import TARGET
from flip.errors import several
from flip.runs.record import RunRecord
from flip.version import __version__

TITLE = "FLIP: Federated Learning and Interoperability Platform, training engine"
AUTHORS = "The FLIP contributors"
ENGINE = "flip-engine"


def details(run: RunRecord) -> list[str]:
    """What the model is, how it was made, and how to cite it, one sentence each."""
    result, prov = run.result, run.provenance
    version = (prov.get("versions") or {}).get(ENGINE, __version__)
    strategy = str((run.config.get("strategy") or {}).get(TARGET, "")).rpartition(".")[2]
    unit = "epoch" if run.backend == "none" else "round"
    how = "without federation" if run.backend == "none" else f"by {strategy} over {run.backend} ({run.federation})"
    said = [
        f"Study: {run.name}. Model: {', '.join(dict.fromkeys(_classes(run.config.get('model') or {})))}.",
        f"Trained {how}, {several(int(result.get('rounds') or 0), unit)}, {several(len(run.sites), 'site')}"
        f"{', started ' + str(prov['started'])[:10] if prov.get('started') else ''}.",
        f"Digest of the weights (sha256): {result['digest']}.",
    ]
    if manifest := prov.get("manifest_sha256"):
        said.append(f"Manifest of the study (sha256): {manifest}.")
    cite = f"{AUTHORS}. {TITLE}, version {version}. Study {run.name}, weights {str(result['digest'])[:12]}."
    return [
        *said,
        f"Engine: {ENGINE} {version}.",
        "License of the weights: whoever trained the model decides; the study states none.",
        f"How to cite: {cite}",
    ]


def _classes(model: Mapping[str, object]) -> Iterator[str]:
    """The classes of a model and of its parts that are networks, the outermost first."""
    if TARGET in model:
        yield str(model[TARGET])
    for part in ("network", "encoder", "head"):
        if isinstance(inner := model.get(part), Mapping):
            yield from _classes(inner)


def intended(run: RunRecord) -> list[str]:
    """What the model is for, and what it is not for, one sentence each."""
    dataset = run.config.get("dataset") or {}
    said = [f"It gives {what}." if (what := _predicts(run, dataset)) else ""]
    said.append(f"Its input is read as {dataset[TARGET]} declares." if TARGET in dataset else "")
    notice = str(run.config.get("notice") or "")
    said.append(f"The study says: {notice}" if notice else "")
    said.append("Intended for research at sites like those that trained it.")
    said.append("Out of scope: diagnosis, treatment or triage of patients, and any other clinical decision.")
    return [each for each in said if each]


def _predicts(run: RunRecord, dataset: Mapping[str, object]) -> str:
    structures = dataset.get("structures")
    if isinstance(structures, list):
        return f"masks of {', '.join(str(each) for each in structures)}"
    names = outcome_names(dataset)
    return f"a prediction of {', '.join(names)}" if names else ""
