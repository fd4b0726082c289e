"""Keeps the PCM of one recording that has arrived and that an encoder still needs."""

from collections import deque


class Backlog:
    """Keeps PCM in the blocks in which it arrived, so that nothing is copied.

    Every position is in bytes since the start of the recording.
    """

    def __init__(self) -> None:
        self.start = 0
        """Everything before this position has been forgotten."""
        self.end = 0
        """Everything before this position has arrived."""
        self._blocks: deque[bytes] = deque()
        # The position of the first block. It may lie before `start`: blocks are dropped whole.
        self._first_block_start = 0

    def __len__(self) -> int:
        return self.end - self.start

    def append(self, block: bytes) -> None:
        """Adds the block that follows."""
        self._blocks.append(block)
        self.end += len(block)

    def read(self, start: int, end: int) -> list[memoryview]:
        """Returns the PCM between two positions, as views of the blocks."""
        views = []
        block_start = self._first_block_start
        for block in self._blocks:
            if block_start >= end:
                break
            if block_start + len(block) > start:
                views.append(memoryview(block)[max(0, start - block_start) : end - block_start])
            block_start += len(block)
        return views

    def forget_before(self, position: int) -> None:
        """Drops the blocks that end before a position, or at it."""
        self.start = position
        while self._blocks and self._first_block_start + len(self._blocks[0]) <= position:
            self._first_block_start += len(self._blocks.popleft())
