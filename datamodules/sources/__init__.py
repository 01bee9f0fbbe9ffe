"""Where a site's cohort comes from: tables, OMOP databases, notes and images, one kind a file (see README.md)."""
