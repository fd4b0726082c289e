"""Says whose turn it is to get something that all users share."""

from collections import Counter, deque
from collections.abc import Hashable
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

    def add(self, user: Hashable, request: T) -> None:
        """Adds a request that waits."""
        self._waiting.setdefault(user, deque()).append(request)

    def take(self) -> tuple[Hashable, T]:
        """Returns the next request and its user, who has one thread or slot more until `give_back`."""
        user = min(self._waiting, key=self._taken.__getitem__)
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
