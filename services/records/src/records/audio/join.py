"""Joins parts of one recording that were encoded apart into one MP3 stream, bit for bit.

Every MP3 frame has a slot, which begins with the frame's header and side information. Its main data, the
coded sound, may begin earlier, in what the slots before have left free (the bit reservoir): the first field
of the side information, `main_data_begin`, says by how many bytes of main data (ISO/IEC 11172-3 section
2.4.1.7 for MPEG-1, 13818-3 for MPEG-2).

Part A has encoded a little more than its share. Part B has started a little earlier than its own, so that
its filters and its reservoir have settled by then. Both have the frames around the cut:

    A    |hdr F-2| data of a.. |hdr F-1| ..a a a f f f f |hdr F| f f ..
                                                ◀──────▶ main_data_begin of F in A: 4 bytes
    B    |hdr F-2| data of b.. |hdr F-1| ..b b b b b F F |hdr F| F F ..
                                                    ◀──▶ main_data_begin of F in B: 2 bytes
    A+B  |hdr F-2| data of a.. |hdr F-1| ..a a a - - F F |hdr F| F F ..

If A ends before frame F, the bytes from which its own F would have begun are free. B's frame F fits there if
it begins no earlier: main_data_begin of B <= that of A. So B's bytes are copied into the end of A's slots,
and from slot F on B goes on as it is. The transforms of F-1 and F overlap, so their windows must have the
same shape there, long or short, on both sides of the join.
"""

from typing import NamedTuple

from .mp3 import HEADER_BYTES, FrameHeader, read_frame_header, samples_per_frame

LEAD_OUT_FRAMES = 6
"""Frames that a part is encoded beyond its share: LAME's look-ahead, and some to choose from."""
HELD_FRAMES = 64
"""Frames at a part's end that a join may look at or change."""

# In its first 32 frames LAME's filters settle, and while the reservoir turns over so often its bits do.
_SHORTEST_LEAD_IN_FRAMES = 32
_LEAD_IN_RESERVOIRS = 24
# The reservoir, in bytes, is what main_data_begin can say: 9 bits in MPEG-1, 8 in MPEG-2 and 2.5.
_RESERVOIR_BYTES = {1152: 511, 576: 255}
# By block type (normal, start, short, stop): whether the left and the right half of its window are short.
_LEFT_IS_SHORT = (False, False, True, True)
_RIGHT_IS_SHORT = (False, True, True, False)


def lead_in_frames(sample_rate: int, bitrate_kbps: int) -> int:
    """How many frames a part is encoded ahead of its share; a join uses none of the first half of them."""
    frame_samples = samples_per_frame(sample_rate)
    slot_bytes = frame_samples / 8 * bitrate_kbps * 1000 / sample_rate
    turnover = _LEAD_IN_RESERVOIRS * _RESERVOIR_BYTES[frame_samples] / slot_bytes
    return max(_SHORTEST_LEAD_IN_FRAMES, round(turnover))


class _Layout(NamedTuple):
    """Where the side information has what a join needs (sections 2.4.1.7 of both standards)."""

    channels: int
    granules: int
    side_info_bytes: int
    begin_bits: int
    """Of main_data_begin, which comes first."""
    granule_bits: int
    """From the start of the side information to that of the first granule's first channel."""
    channel_bits: int
    """Of one channel of one granule."""
    switching_bit: int
    """In these: window_switching_flag; where it is set the two bits after it are the block type."""

    @classmethod
    def of(cls, header: FrameHeader) -> "_Layout":
        mono = header.channels == 1
        if header.version == "1":
            return cls(header.channels, 2, header.side_info_bytes, 9, 18 if mono else 20, 59, 33)
        return cls(header.channels, 1, header.side_info_bytes, 8, 9 if mono else 10, 63, 38)


class Frames:
    """The end of an MP3 stream that grows, as LAME makes it: of constant bitrate, and without checksums.

    Frames are numbered over the whole recording. One is there as soon as its side information is.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        """Number of the first frame that is still held."""
        self._data = bytearray()
        self._slots: list[int] = []
        self._next_slot = 0
        self._slot_bytes = 0
        self._layout: _Layout | None = None

    @property
    def end(self) -> int:
        """Number of the first frame that is not there yet."""
        return self.first + len(self._slots)

    def append(self, mp3: bytes) -> None:
        """Takes the next bytes of the stream; they may end anywhere."""
        self._data += mp3
        if self._layout is None:
            if len(self._data) < HEADER_BYTES:
                return
            header = read_frame_header(bytes(self._data[:HEADER_BYTES]))
            self._layout, self._slot_bytes = _Layout.of(header), header.frame_bytes - header.padded
        data, slot, slot_bytes = self._data, self._next_slot, self._slot_bytes
        end = len(data) - self._overhead_bytes
        while slot <= end:
            self._slots.append(slot)
            # All slots are of one size but for a byte of padding, of which a bit in the header tells.
            slot += slot_bytes + (data[slot + 2] >> 1 & 1)
        self._next_slot = slot

    def take_before(self, frame: int) -> bytes:
        """Returns the slots before `frame`, which is there, and holds them no longer."""
        count = frame - self.first
        if count <= 0:
            return b""
        size = self._slots[count]
        taken = bytes(self._data[:size])
        del self._data[:size]
        self._slots = [slot - size for slot in self._slots[count:]]
        self._next_slot -= size
        self.first = frame
        return taken

    def take_all(self) -> bytes:
        """Returns all that is held, at the end of the stream."""
        taken = bytes(self._data)
        self._data.clear()
        return taken

    def main_data_begin(self, frame: int) -> int:
        """By how many bytes of main data `frame` begins before its slot."""
        return self._bits(frame, 0, self._known.begin_bits)

    def block_types(self, frame: int) -> list[list[int]]:
        """The block types of `frame`, by granule and channel: 0 normal, 1 start, 2 short, 3 stop."""
        layout = self._known
        types = []
        for number in range(layout.granules * layout.channels):
            flag = layout.granule_bits + number * layout.channel_bits + layout.switching_bit
            types.append(self._bits(frame, flag + 1, 2) if self._bits(frame, flag, 1) else 0)
        return [types[start : start + layout.channels] for start in range(0, len(types), layout.channels)]

    def main_data_before(self, frame: int, size: int) -> bytes:
        """Returns the last `size` bytes of main data before the slot of `frame`, or as many as are held."""
        return b"".join(self._data[area] for area in self._areas_before(frame, size))

    def put_main_data_before(self, frame: int, main_data: bytes) -> None:
        """Replaces the last bytes of main data before the slot of `frame`, which are held."""
        done = 0
        for area in self._areas_before(frame, len(main_data)):
            size = area.stop - area.start
            self._data[area] = main_data[done : done + size]
            done += size

    @property
    def _known(self) -> _Layout:
        if self._layout is None:
            raise RuntimeError("the stream has no frame yet")
        return self._layout

    @property
    def _overhead_bytes(self) -> int:
        return HEADER_BYTES + self._known.side_info_bytes

    def _bits(self, frame: int, first: int, count: int) -> int:
        start = self._slots[frame - self.first] + HEADER_BYTES
        side_info = int.from_bytes(self._data[start : start + self._known.side_info_bytes], "big")
        return side_info >> 8 * self._known.side_info_bytes - first - count & (1 << count) - 1

    def _areas_before(self, frame: int, size: int) -> list[slice]:
        areas: list[slice] = []
        index = frame - self.first
        while size and index:
            start, end = self._slots[index - 1] + self._overhead_bytes, self._slots[index]
            areas.append(slice(max(start, end - size), end))
            size -= end - areas[-1].start
            index -= 1
        return areas[::-1]


def join(a: Frames, b: Frames, earliest: int) -> bytes | None:
    """Ends `a` before the frame from which `b` can best go on, and takes `b`'s frames before that away.

    `earliest` is the first frame in which `b` has settled.
    Returns the rest of `a`, which `b`'s frames follow; None, with nothing changed, where no frame fits.
    """
    fitting = []
    for frame in range(max(a.first + 1, earliest), min(a.end, b.end)):
        size = b.main_data_begin(frame)
        lost = a.main_data_begin(frame) - size
        if lost >= 0 and _windows_meet(a, b, frame) and len(a.main_data_before(frame, size)) == size:
            fitting.append((lost, -frame))
    if not fitting:
        return None
    # What of the reservoir is lost, the next frames would have had; the later, the more has B settled.
    frame = -min(fitting)[1]
    a.put_main_data_before(frame, b.main_data_before(frame, b.main_data_begin(frame)))
    b.take_before(frame)
    return a.take_before(frame)


def _windows_meet(a: Frames, b: Frames, frame: int) -> bool:
    before, after = a.block_types(frame - 1)[-1], b.block_types(frame)[0]
    return all(_RIGHT_IS_SHORT[x] == _LEFT_IS_SHORT[y] for x, y in zip(before, after, strict=True))
