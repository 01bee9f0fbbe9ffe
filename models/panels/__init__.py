"""What a head shows in the report beside its metrics, as plain tables and lines made from summed counts.

A panel is `title`, `note` and any of `table` (`columns`, `rows`), `matrix` (`names`, `columns`, `counts`) and `plots`:
each `title`, `x`, `y` (labels), `lines` (`name`, `x`, `y`, perhaps `low`, `high`, `step`), `unit` (axes from 0 to 1),
`diagonal`, and `below` (`columns`, `rows`: a table under the plot). The report draws them; nothing in them is a
person's.
"""
