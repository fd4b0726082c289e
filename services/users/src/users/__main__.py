"""`python -m users` runs the service."""

from common.server import serve
from users.app import create_app
from users.settings import Settings

serve(create_app, Settings)
