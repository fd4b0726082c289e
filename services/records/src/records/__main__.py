"""`python -m records` runs the service; with a command it runs this command of the operator."""

import os
import sys

from common.imports import without_collector

with without_collector():
    from common.server import serve
    from records import commands
    from records.app import create_app
    from records.settings import Settings

if sys.argv[1:]:
    sys.exit(commands.main(sys.argv[1:], os.environ))
serve(create_app, Settings)
