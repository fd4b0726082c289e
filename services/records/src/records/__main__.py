"""`python -m records` runs the service; with the command `doctor` it runs the operator's command."""

import gc
import os
import sys

# Imports leave no garbage, and looking for it would take an eighth of their time.
gc.disable()

from common.server import serve
from records import commands
from records.app import create_app
from records.settings import Settings

gc.enable()
if sys.argv[1:]:
    sys.exit(commands.main(sys.argv[1:], os.environ))
serve(create_app, Settings)
