"""Says whose turn it is to get something that all users share."""

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """The requests of users that wait for a thread or a slot.

    The next user is the one who has the fewest threads or slots at the moment; among equals, the one who has
    waited longest for a turn. The requests of one user keep their order. So a user's single request waits no
    longer behind many requests of another user than behind a few.
    """

    def __init__(self) -> None:
        # The user with the latest turn is the last one.
        self._waiting: dict[Hashable, deque[T]] = {}
        self._taken: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def taken(self) -> int:
        """How many threads or slots all users have."""
        return self._taken.total()

    def __iter__(self) -> Iterator[tuple[Hashable, T]]:
        """Yields the users and their requests that wait, those of one user together."""
        return ((user, request) for user, requests in self._waiting.items() for request in requests)

    def add(self, user: Hashable, request: T) -> None:
        """Adds a request that waits."""
        self._waiting.setdefault(user, deque()).append(request)

    def take(self, may_have: Callable[[T], bool] = lambda _: True) -> tuple[Hashable, T]:
        """Returns the next request and its user, who has one thread or slot more until `give_back`.

        Passes over users whose first request may not have one now. Raises IndexError if no user is left.
        """
        users = [user for user, requests in self._waiting.items() if may_have(requests[0])]
        if not users:
            raise IndexError
        user = min(users, key=self._taken.__getitem__)
        requests = self._waiting.pop(user)
        request = requests.popleft()
        if requests:
            self._waiting[user] = requests
        self._taken[user] += 1
        return user, request

    def remove(self, user: Hashable, request: T) -> None:
        """Removes a request that waits."""
        self._waiting[user].remove(request)
        if not self._waiting[user]:
            del self._waiting[user]

    def give_back(self, user: Hashable) -> None:
        """Notes that the user has one thread or slot less."""
        self._taken[user] -= 1
        if not self._taken[user]:
            del self._taken[user]
