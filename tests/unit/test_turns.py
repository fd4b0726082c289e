"""Users take turns: the one with the fewest is next, and then the one who has waited longest."""

from records.turns import Turns


def make_turns(*requests: str) -> Turns[str]:
    """Returns turns in which these requests wait; the first letter of each is its user."""
    turns = Turns[str]()
    for request in requests:
        turns.add(request[0], request)
    return turns


def take_all(turns: Turns[str], *, at_once: int) -> list[str]:
    """Takes all requests in turn; `at_once` of them hold a slot at a time. Returns their order."""
    order, under_way = [], []
    while turns:
        user, request = turns.take()
        order.append(request)
        under_way.append(user)
        if len(under_way) == at_once:
            turns.give_back(under_way.pop(0))
    return order


def test_users_take_turns_and_the_requests_of_one_keep_their_order() -> None:
    requests = ("a1", "a2", "a3", "a4", "b1", "b2", "c1")
    for at_once in (1, 2, 3):
        order = take_all(make_turns(*requests), at_once=at_once)
        assert order == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_the_user_who_has_the_fewest_is_next() -> None:
    turns = make_turns("a1", "a2", "a3")
    assert [turns.take(), turns.take()] == [("a", "a1"), ("a", "a2")]
    turns.add("b", "b1")
    turns.add("b", "b2")
    turns.add("b", "b3")
    assert [turns.take()[1] for _ in range(3)] == ["b1", "b2", "a3"]
    turns.give_back("b")
    turns.give_back("b")
    turns.add("a", "a4")
    assert turns.take() == ("b", "b3")
    assert len(turns) == 1


def test_one_user_waits_for_one_turn_of_each_other_user_however_much_they_want() -> None:
    for count in (2, 32):
        turns = make_turns(*(f"a{number}" for number in range(count)))
        turns.take()
        turns.add("b", "b1")
        turns.give_back("a")
        assert "b1" in [turns.take()[1] for _ in range(2)]
