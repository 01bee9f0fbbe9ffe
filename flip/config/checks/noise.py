"""Whether a study's noise lies where its theorem has it: inside a sum, of one step, of sites that weigh the same."""

from collections.abc import Iterator

from flip.config.study import Study
from flip.errors import at
from flip.privacy import Mechanism
from flip.privacy.distributed_dp import DistributedDP
from flip.privacy.secure.session import Rules
from flip.strategies.fedavg import FedAvg


def noise_problems(study: Study, name: str, mechanism: Mechanism, strategy: FedAvg) -> Iterator[str]:
    """A sentence for each thing by which noise in a sum would not hide what it says; `name` is the mechanism's."""
    if not isinstance(mechanism, DistributedDP):
        return
    key, manifest = at(f"privacy.{name}", study.where), study.manifest
    if others := [each for each in manifest["mechanisms"] if each != name]:
        yield f"{key}: makes sums and has noise in them already; leave {', '.join(others)} out"
    if strategy.site_weights is not None:
        yield (
            f"{at('strategy.site_weights', study.where)}: under privacy.{name} all sites weigh the same, or one would "
            "change the mean by more than its noise is for; set it to null"
        )
    steps = manifest["trainer"]["steps"]
    if mechanism.unit == "person" and steps != 1:
        yield (
            f"{at('trainer.steps', study.where)}: noise in a sum hides a person in one step between two sums, not in "
            f"{steps or 'an epoch'}; set trainer.steps=1 trainer.epochs=null, or privacy=[dp_sgd,secure_aggregation], "
            "by which each site has the whole noise"
        )
    training = sum(site.trains for site in study.sites.values())
    least = Rules(threshold=mechanism.threshold).needed(training)
    if mechanism.colluding >= least:
        yield f"{key}.colluding: {mechanism.colluding} of {least} sites leave nobody whose noise is unknown; give fewer"
