"""The settings of the users service."""

from typing import Annotated

import msgspec

from common.host_names import SignUp, choose_sign_up
from common.settings import ServiceSettings, SettingsError


class Settings(ServiceSettings, frozen=True, kw_only=True):
    """The settings of one instance of the service."""

    # Who may sign up; see `sign_up` for the default.
    signup: SignUp | None = None
    signup_key: Annotated[str, msgspec.Meta(pattern=r"^([!-~]{8,})?$")] = ""

    def __post_init__(self) -> None:
        """Raises SettingsError if sign-ups need a key and there is none."""
        if self.sign_up == "key" and not self.signup_key:
            raise SettingsError(
                "SIGNUP_KEY is not set, but a sign-up needs it: choose a key, or set SIGNUP to open or closed"
                " (without SIGNUP, a public host in PUBLIC_URL or ALLOWED_HOSTS means key)"
            )

    @property
    def sign_up(self) -> SignUp:
        """Who may sign up: everybody, whoever has the key, or nobody."""
        return choose_sign_up(self.signup, self.public_url, self.allowed_hosts)
