"""The coordinator's end of a round of a secure sum: it takes the masks out that are left, and learns the sum alone."""

from collections.abc import Mapping

import numpy as np

from flip.privacy.secure import shamir
from flip.privacy.secure.keys import KEY, Broken, Round, public
from flip.privacy.secure.ring import Ring, add_mask
from flip.privacy.secure.session import own_mask, pair_mask


def opened(
    round: Round,
    masked: Mapping[str, Ring],
    began: Mapping[str, bytes],
    went_on: Mapping[str, object],
    told: Mapping[str, Mapping[str, bytes]],
) -> Ring:
    """The sum of what the sites in `masked` sent.

    Args:
        round: which.
        masked: numbers [n] by site, of those whose numbers came.
        began: the signed keys by site, of all that the round began with.
        went_on: the sites that shared their secrets with all others.
        told: by site, its shares of each site's secret; as many sites as the threshold at least.

    Raises Broken for shares that give no key of a site's.
    """
    points = {site: place for place, site in enumerate(sorted(began), 1)}
    secrets = {}
    for site in went_on:
        shares = {points[by]: int.from_bytes(each[site]) for by, each in told.items()}
        whole = shamir.join(shares)
        if whole >= 2 ** (8 * KEY):
            raise Broken(f"shares that give no key of {site}")
        secrets[site] = whole.to_bytes(KEY)
    total: Ring = np.zeros_like(next(iter(masked.values())))
    for site, numbers in masked.items():
        total += numbers
        add_mask(total, own_mask(secrets[site], round), subtract=True)
    for lost in sorted({*went_on} - {*masked}):
        if public(secrets[lost]) != began[lost][KEY : 2 * KEY]:
            raise Broken(f"shares that do not give the key of {lost}")
        for site in masked:
            other = began[site][KEY : 2 * KEY]
            # what the one that came added for the lost one, it did with the sign of the two names
            add_mask(total, pair_mask(secrets[lost], other, round, lost, site), subtract=site < lost)
    return total
