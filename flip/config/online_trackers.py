"""Which of a study's trackers can send its numbers elsewhere: what a coordinator tells every site."""

from collections.abc import Mapping

from flip.config.targets import TARGET

LOCAL, WANDB = "flip.tracking.CsvTracker", "flip.tracking.WandbTracker"


def online(tracking: Mapping[str, Mapping[str, object] | None]) -> str:
    """Names of the configured trackers that can send numbers elsewhere, with commas, for a site to permit or refuse.

    W&B is "wandb" where it is online; of a class that is not the engine's nobody knows: its whole name stands there.
    """
    names = set()
    for each in tracking.values():
        target = str(each[TARGET]) if each else LOCAL
        if target == WANDB and each and each.get("mode", "offline") == "online":
            names.add("wandb")
        elif target not in (WANDB, LOCAL):
            names.add(target)
    return ",".join(sorted(names))
