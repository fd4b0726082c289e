"""`python -m records` runs the service."""

from common.server import serve
from records.app import create_app
from records.settings import Settings

serve(create_app, Settings)
