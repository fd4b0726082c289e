"""A stack whose object store has several nodes: what clients and operators see when nodes are away or come back."""

from collections.abc import Iterator

import pytest

from deploy.local.stack import Stack
from tests.drills.store import StoreDrill
from tests.integration.waiting import wait_until
from tests.minio_nodes import NODES, MinioNodes, minio_nodes
from tests.stacks import temporary_stack


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioNodes]:
    with minio_nodes(tmp_path_factory.mktemp("nodes")) as nodes:
        wait_until(lambda: all(map(nodes.is_ready, range(NODES))))
        yield nodes


@pytest.fixture(scope="module")
def stack(nodes: MinioNodes) -> Iterator[Stack]:
    # The first endpoint, for which URLs are signed, is one of the nodes that the drill kills.
    with temporary_stack(nodes.settings) as stack:
        yield stack


async def test_nothing_is_lost_or_called_lost_while_nodes_of_the_store_are_away_and_come_back(
    stack: Stack, nodes: MinioNodes
) -> None:
    drill = StoreDrill(stack, nodes, print)
    await drill.run(uploads=4, downloads=60, failed_uploads=0)
    assert drill.ledger.violations == []


def test_status_shows_every_node(stack: Stack, nodes: MinioNodes) -> None:
    pass
