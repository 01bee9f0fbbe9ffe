"""CT at the third lumbar vertebra: a site's table of studies, the planes of a volume, and examples made from them."""
