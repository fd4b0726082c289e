"""`python -m users` runs the service; with a command, such as `list`, it runs the operator's command."""

import os
import sys

from common.imports import without_collector

with without_collector():
    from common.server import serve
    from users import commands
    from users.app import create_app
    from users.settings import Settings

if sys.argv[1:]:
    commands.main(sys.argv[1:], os.environ)
else:
    serve(create_app, Settings)
