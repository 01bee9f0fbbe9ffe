"""The coordinator's end of a secure sum: it takes the masks out that are left, and learns the sum alone."""

from collections.abc import Callable, Collection, Mapping

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
) -> set[str]:
    """Take the masks out of a sum, in place; the sites that told wrong shares, where one can be told from the others.

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
    wrong: set[str] = set()
    for site in sorted(next(iter(told.values()))):
        shares = {points[by]: int.from_bytes(each[site]) for by, each in told.items() if by not in wrong}
        shows, shown = (seal_of, keys[site].seal) if site in present else (public, keys[site].masks)
        secret, liar = _secret(shares, shows, shown)
        wrong |= {by for by in told if points[by] == liar}
        if site in present:
            add_mask(total, own_mask(secret, among), subtract=True)
            continue
        for other in present:
            # what the one that came added for the lost one, it did with the sign of the two names
            key = pair_mask(secret, keys[other].masks, among, site, other)
            add_mask(total, key, subtract=other < site)
    return wrong


def _secret(shares: Mapping[int, int], shows: Callable[[bytes], bytes], shown: bytes) -> tuple[bytes, int | None]:
    """The secret of shares by point, and the point of the wrong one among them; None: none. Raises Broken."""
    for wrong in (None, *shares):
        whole = shamir.join({point: share for point, share in shares.items() if point != wrong})
        if whole < 2 ** (8 * KEY) and shows(whole.to_bytes(KEY)) == shown:
            return whole.to_bytes(KEY), wrong
    raise Broken("shares that do not give what their site has shown")
