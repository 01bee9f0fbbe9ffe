"""A run that trained nothing and scored models that were trained elsewhere: which they are."""

from flip.runs.models import model_name
from flip.runs.record import RunRecord


def applied(run: RunRecord) -> dict[str, str]:
    """Where each model's metrics begin (as `RunRecord.tested` has it), by its name; empty for a run that trained."""
    models = run.result.get("models") or []
    named = [f"{each.get('name')}, {str(each.get('digest'))[:12]}" for each in models]
    if len(named) == 1:
        return {named[0]: ""}
    prefixes = ["", *(f"baseline/{model_name(number)}/" for number in range(1, len(named)))]
    return {f"model {number} ({name})": prefixes[number - 1] for number, name in enumerate(named, start=1)}


def applied_words(run: RunRecord) -> str:
    """That nothing was trained, and which models were scored; empty for a run that trained."""
    models = run.result.get("models") or []
    told = "; ".join(f"{each.get('name')}, digest {str(each.get('digest'))[:12]}" for each in models)
    if not models:
        return ""
    return f"nothing was trained: {'the model is' if len(models) == 1 else f'the {len(models)} models are'} {told}"
