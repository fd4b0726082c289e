"""`python -m users` runs the service; with a command, such as `list`, it runs the operator's command."""

import gc
import os
import sys

# Imports leave no garbage, and looking for it would take an eighth of their time.
gc.disable()

from common.server import serve
from users import commands
from users.app import create_app
from users.settings import Settings

gc.enable()
if sys.argv[1:]:
    commands.main(sys.argv[1:], os.environ)
else:
    serve(create_app, Settings)
