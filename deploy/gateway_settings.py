"""The settings of the gateway. They are checked before nginx, which would name lines of its configuration."""

from ipaddress import ip_network
from typing import Annotated

import msgspec

from common.settings import PositiveInt, Seconds, SettingsError, ShutdownSeconds

# nginx counts no more.
_Connections = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class StopSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The setting that also the commands need which start nothing."""

    shutdown_seconds: ShutdownSeconds = 50


class GatewaySettings(StopSettings, frozen=True, kw_only=True):
    """What the template of the configuration needs."""

    max_upload_bytes: PositiveInt = 4 * 1024**3
    cache_max_bytes: PositiveInt = 1024**3
    cache_seconds: Seconds = 600
    requests_per_address: _Connections = 1000
    uploads_per_address: _Connections = 64
    sign_ups_per_minute: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 600
    # No client has this address, so nobody is trusted.
    trusted_proxy: str = "255.255.255.255"

    def __post_init__(self) -> None:
        """Raises SettingsError if the proxy is neither an IP address nor a network."""
        try:
            ip_network(self.trusted_proxy, strict=False)
        except ValueError as error:
            raise SettingsError(f"TRUSTED_PROXY: {error}") from None

    @property
    def variables(self) -> dict[str, str]:
        """The variables of the template."""
        return {f"WAXWING_{name.upper()}": str(value) for name, value in msgspec.structs.asdict(self).items()}
