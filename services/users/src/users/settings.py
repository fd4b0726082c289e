"""The settings of the users service."""

from common.settings import ServiceSettings


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """The settings of both services; the users service has no others."""
