"""Strategies: how sites' answers become the next weights. One file each; each holds the coordinator's and the site's
half."""
