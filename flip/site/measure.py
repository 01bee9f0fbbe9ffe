"""`job=measure` at a site: a finished run's model, applied to the whole cohort; what it measures stays there."""

from dataclasses import replace

from flip.config import build
from flip.contracts import Agrees
from flip.messages import Payload
from flip.messages.weights import load_arrays
from flip.site.admission import Loaded, Place


def measure(place: Place, loaded: Loaded, weights: Payload) -> None:
    """Have the study's `outcomes` measure every person as one who is tested on, into the site's own folder.

    Readable by their owner alone, as `outcomes` write for a site. Raises DataError for a cohort that cannot be read.
    """
    load_arrays(loaded.module, weights)
    data = build.datamodule(loaded.manifest, place.name, replace(place.site, trains=False))
    build.load_cohort(data)
    if loaded.agreed and isinstance(data, Agrees):
        data.agree(loaded.agreed)
    assert loaded.outcomes is not None  # the job is for a study that has some (`flip.config.checks`)
    loaded.outcomes.collect(loaded.module, data, place.home)
