"""The problems of the users service, as the client sees them."""

from common.problems import InvalidCredentials, Problem


class InvalidSignUpKey(InvalidCredentials):
    """A sign-up needs the sign-up key of this deployment, and the request has none or a wrong one."""

    title = "The sign-up key is missing or wrong"
    is_for_users = False


class SignUpClosed(Problem):
    """This deployment takes no new users."""

    status_code = 403
    title = "This deployment takes no new users"
