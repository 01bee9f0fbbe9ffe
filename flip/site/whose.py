"""Whose rows a study may read at a site: by the column that says it, and without those who opted out."""

from flip.config import build
from flip.config.opt_out import opted_out
from flip.config.schema import Site
from flip.config.study import Manifest
from flip.config.targets import TARGET
from flip.contracts import FederatedDataModule, ListsPersons
from flip.messages import Fault
from flip.site.refusal import Refusal

LIST = "opt_out"


def rows_of_nobody(manifest: Manifest, site: Site, *, deployed: bool) -> str:
    """Why a hospital's file does not say whose its rows are; nothing where it does, or the dataset does not ask.

    A study that names the column, or none, would decide how many persons the site's rows count for. A table among the
    site's sources names its own.
    """
    asks = deployed and site.person is None and "table" not in site.sources
    if not (asks and build.takes(manifest["dataset"], (build.PERSON,))):
        return ""
    return f"{build.PERSON}: is not in the site's file; name the column of its table, or 'row' where each row is one"


def ignores_list(manifest: Manifest, site: Site) -> str:
    """Why a study would read the rows of persons who opted out; nothing where its dataset takes the site's list."""
    if not site.opt_out or build.takes(manifest["dataset"], (LIST,)):
        return ""
    return f"{LIST}: {manifest['dataset'][TARGET]} takes no list of persons who opted out, by an argument `{LIST}`"


def without_list(data: FederatedDataModule, site: Site) -> str:
    """Hold a cohort against the site's list; what the site's own log says of it, empty without a list.

    Raises Refusal where the dataset does not say whose rows it has, or has some of a person on the list.
    """
    if not (listed := opted_out(site)):
        return ""
    if not isinstance(data, ListsPersons):
        words = "must say whose rows it has (person_names, opted_out), as the site has a list of persons who opted out"
        raise Refusal(Fault.REFUSED_RULE, f"{LIST}: {type(data).__name__} {words}")
    if left := listed & {*data.person_names()}:
        raise Refusal(Fault.REFUSED_RULE, f"{LIST}: {type(data).__name__} has rows of {len(left)} persons on the list")
    rows, persons = data.opted_out
    return f"{LIST}: {rows} rows of {persons} persons are left out; {len(listed) - persons} on the list have none here"
