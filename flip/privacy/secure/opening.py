"""The coordinator's end of a secure sum: it takes the masks out that are left, and learns the sum alone."""

from collections.abc import Collection, Mapping

from flip.privacy import Broken
from flip.privacy.secure import shamir
from flip.privacy.secure.keys import KEY, Keys, Round, public, seal_of
from flip.privacy.secure.ring import Ring, add_mask
from flip.privacy.secure.session import own_mask, pair_mask, points_of


def open_sum(
    total: Ring,
    round: Round,
    present: Collection[str],
    *,
    began: Mapping[str, bytes],
    told: Mapping[str, Mapping[str, bytes]],
) -> None:
    """Take the masks out of a sum, in place.

    Args:
        total: numbers [n], the sum of what the sites in `present` sent.
        round: which, before it began.
        present: those sites.
        began: the signed keys by site, of all that the round began with.
        told: by site, its shares of the secret of each that went on; as many sites as the threshold at least.

    Raises Broken for shares that do not give the secrets that the sites have shown.
    """
    keys, among, points = (
        {site: Keys.of(text) for site, text in began.items()},
        round.beginning(began),
        points_of(began),
    )
    for site in sorted(next(iter(told.values()))):
        shares = {points[by]: int.from_bytes(each[site]) for by, each in told.items()}
        whole = shamir.join(shares)
        secret = whole.to_bytes(KEY) if whole < 2 ** (8 * KEY) else b""
        if site in present:
            if seal_of(secret) != keys[site].seal:
                raise Broken(f"shares that do not give the mask of {site}")
            add_mask(total, own_mask(secret, among), subtract=True)
            continue
        if not secret or public(secret) != keys[site].masks:
            raise Broken(f"shares that do not give the key of {site}")
        for other in present:
            # what the one that came added for the lost one, it did with the sign of the two names
            key = pair_mask(secret, keys[other].masks, among, site, other)
            add_mask(total, key, subtract=other < site)
