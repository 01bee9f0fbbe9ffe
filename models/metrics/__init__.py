"""Metrics whose states sum over sites, and exact ones whose rows stay at a site."""
