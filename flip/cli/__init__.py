"""From the command line to a run or a sweep."""
