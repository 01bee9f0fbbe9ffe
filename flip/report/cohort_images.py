"""What does not seem to fit of the sites' images before training: they show nothing, or differ from the others'."""

from collections.abc import Iterator, Mapping

from flip.messages.summary import IMAGE, Moments
from flip.report.finding import Finding

ODD = ("nearly one gray level", "saturated")  # how images look that show nothing, as datasets say it
APART = 3.0  # deviations of the other sites between their images' mean and this one's, from which on it is named
REMEDY = "dataset.image.values and window say how values become input; the site's own page images.html shows them"


def image_findings(
    site: str, missing: float | None, odd: Mapping[str, float | None], *, own: Moments | None, rest: Moments | None
) -> Iterator[Finding]:
    """What does not fit of a site's images.

    `missing`: share of persons without one. `odd`: persons by how an image looks that shows nothing. `own`, `rest`: of
    the images' means, at the site and at the others.
    """
    if missing == 1.0:
        yield Finding(
            site, IMAGE, "has no image of anybody", "dataset.image.folder, records.accession, or sources.images"
        )
    for look, persons in odd.items():
        if persons:
            what = f"{persons:.0f} person{'s have' if persons > 1 else ' has'} an image that shows nothing ({look})"
            yield Finding(site, IMAGE, what, REMEDY)
    if own is None or rest is None or not rest.deviation:
        return
    apart = (own.mean - rest.mean) / rest.deviation
    if abs(apart) >= APART:
        word = "brighter" if apart > 0 else "darker"
        what = (
            f"its images are {word} than the other sites': on average {own.mean:.2g} of the window, theirs "
            f"{rest.mean:.2g}, {abs(apart):.1f} of their deviations apart"
        )
        yield Finding(site, IMAGE, what, f"Other bits, or another window? {REMEDY}")
