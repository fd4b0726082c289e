"""The settings of the users service."""

from common.settings import ServiceSettings


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """Nothing beyond what every service needs."""
