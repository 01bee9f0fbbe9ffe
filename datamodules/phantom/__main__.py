"""`python -m datamodules.phantom OUT`: writes the demo cohort."""

import sys

from datamodules.phantom.cohort import main

sys.exit(main())
