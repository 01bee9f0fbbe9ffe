"""`python -m datamodules.phantom OUT` writes the demo cohort, `... abdomen OUT` the scans of the whole abdomen."""

import sys

from datamodules.phantom.abdomen.cohort import main as abdomen
from datamodules.phantom.cohort import main

sys.exit(abdomen(sys.argv[2:]) if sys.argv[1:2] == ["abdomen"] else main())
