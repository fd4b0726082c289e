"""Joins two segments of one recording into one valid MP3 stream, though each had an encoder of its own.

Every MP3 frame has a slot, which starts with its header and its side information. The MP3 frame's main data,
the coded sound, may begin earlier, in bytes that the slots before it have left free (the bit reservoir). The
first field of the side information, `main_data_begin`, says how many bytes of main data earlier (ISO/IEC
11172-3 section 2.4.1.7 for MPEG-1, 13818-3 for MPEG-2).

Segment A has encoded a little beyond its end. Segment B has started a little before its own first MP3 frame,
so that its filters and its reservoir have settled by then. Both have encoded the MP3 frames around the cut:

    A    |hdr F-2| data of a.. |hdr F-1| ..a a a f f f f |hdr F| f f ..
                                                ◀──────▶ main_data_begin of F in A: 4 bytes
    B    |hdr F-2| data of b.. |hdr F-1| ..b b b b b F F |hdr F| F F ..
                                                    ◀──▶ main_data_begin of F in B: 2 bytes
    A+B  |hdr F-2| data of a.. |hdr F-1| ..a a a - - F F |hdr F| F F ..

If A ends before MP3 frame F, the bytes from which A's own F would have begun are free. B's F fits there if it
begins no earlier, that is if main_data_begin of B <= main_data_begin of A. B's bytes are copied into the end
of A's slots, and from slot F on the slots of B follow unchanged. The MDCT windows of F-1 and F overlap, so
the right half of A's MDCT window at F-1 and the left half of B's at F must have the same shape, long or
short.
"""

from typing import NamedTuple

from .mp3 import HEADER_BYTES, Mp3FrameHeader, read_mp3_frame_header, sample_frames_per_mp3_frame

LEAD_OUT_MP3_FRAMES = 6
"""MP3 frames that a segment encodes beyond its end: LAME's look-ahead, and a choice for the join."""
HELD_MP3_FRAMES = 64
"""MP3 frames at a segment's end that a join may look at or change."""

# LAME's filters settle in its first 32 MP3 frames. Its bits settle while the reservoir turns over 24 times.
_MIN_LEAD_IN_MP3_FRAMES = 32
_LEAD_IN_RESERVOIRS = 24
# The size of the reservoir is the largest main_data_begin: it has 9 bits in MPEG-1, 8 in MPEG-2 and 2.5.
_RESERVOIR_BYTES = {1152: 511, 576: 255}
# By block type (normal, start, short, stop): whether the left and the right half of its MDCT window are
# short.
_LEFT_IS_SHORT = (False, False, True, True)
_RIGHT_IS_SHORT = (False, True, True, False)
# In the third byte of an MP3 frame: whether its slot has one more byte.
_PADDING_SHIFT, _PADDING_MASK = 1, 1


def lead_in_mp3_frames(sample_rate: int, bitrate_kbps: int) -> int:
    """Returns how many MP3 frames a segment encodes before its own first one.

    A join uses none of the first half of them.
    """
    sample_frames = sample_frames_per_mp3_frame(sample_rate)
    slot_bytes = sample_frames / 8 * bitrate_kbps * 1000 / sample_rate
    turnover = _LEAD_IN_RESERVOIRS * _RESERVOIR_BYTES[sample_frames] / slot_bytes
    return max(_MIN_LEAD_IN_MP3_FRAMES, round(turnover))


class _Layout(NamedTuple):
    """Where a join finds its fields in the side information (section 2.4.1.7 of both standards)."""

    channels: int
    granules: int
    side_info_bytes: int
    main_data_begin_bits: int
    """The length of main_data_begin, which is the first field."""
    first_granule_bit: int
    """Where the first channel of the first granule begins."""
    channel_bits: int
    """The length of one channel of one granule."""
    switching_bit: int
    """Where window_switching_flag stands in these. If it is set, the next two bits are the block type."""

    @classmethod
    def of(cls, header: Mp3FrameHeader) -> "_Layout":
        mono = header.channels == 1
        if header.version == "1":
            return cls(header.channels, 2, header.side_info_bytes, 9, 18 if mono else 20, 59, 33)
        return cls(header.channels, 1, header.side_info_bytes, 8, 9 if mono else 10, 63, 38)


class Mp3Frames:
    """The last MP3 frames of a growing stream. LAME makes it of constant bitrate and without checksums.

    MP3 frames are numbered over the whole recording. One counts as arrived once its side information has.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        """The number of the first MP3 frame that is still held."""
        self._data = bytearray()
        self._slots: list[int] = []
        self._next_slot = 0
        self._slot_bytes = 0
        self._layout: _Layout | None = None

    @property
    def end(self) -> int:
        """The number of the first MP3 frame that has not arrived yet."""
        return self.first + len(self._slots)

    def append(self, mp3: bytes) -> None:
        """Takes the next bytes of the stream, which may end anywhere.

        Raises ValueError if the stream does not start with an MP3 frame.
        """
        self._data += mp3
        if self._layout is None:
            if len(self._data) < HEADER_BYTES:
                return
            header = read_mp3_frame_header(bytes(self._data[:HEADER_BYTES]))
            self._layout, self._slot_bytes = _Layout.of(header), header.mp3_frame_bytes - header.padded
        data, slot, slot_bytes = self._data, self._next_slot, self._slot_bytes
        end = len(data) - self._overhead_bytes
        while slot <= end:
            self._slots.append(slot)
            # All slots have the same size, but for the padding byte that a bit of the header announces.
            padding = (data[slot + 2] >> _PADDING_SHIFT) & _PADDING_MASK
            slot += slot_bytes + padding
        self._next_slot = slot

    def take_before(self, mp3_frame: int) -> bytes:
        """Returns the slots before `mp3_frame`, which has arrived, and holds them no longer."""
        count = mp3_frame - self.first
        if count <= 0:
            return b""
        size = self._slots[count]
        taken = bytes(self._data[:size])
        del self._data[:size]
        self._slots = [slot - size for slot in self._slots[count:]]
        self._next_slot -= size
        self.first = mp3_frame
        return taken

    def take_all(self) -> bytes:
        """Returns everything that is held, at the end of the stream."""
        taken = bytes(self._data)
        self._data.clear()
        return taken

    def main_data_begin(self, mp3_frame: int) -> int:
        """Returns how many bytes before its slot the main data of `mp3_frame` begins."""
        return self._read_bits(mp3_frame, 0, self._known.main_data_begin_bits)

    def block_types(self, mp3_frame: int) -> list[list[int]]:
        """Returns the block types of `mp3_frame` by granule and channel.

        They are 0 (normal), 1 (start), 2 (short) and 3 (stop).
        """
        layout = self._known
        types = []
        for number in range(layout.granules * layout.channels):
            flag = layout.first_granule_bit + number * layout.channel_bits + layout.switching_bit
            types.append(
                self._read_bits(mp3_frame, flag + 1, 2) if self._read_bits(mp3_frame, flag, 1) else 0
            )
        return [types[start : start + layout.channels] for start in range(0, len(types), layout.channels)]

    def main_data_before(self, mp3_frame: int, size: int) -> bytes:
        """Returns the last `size` bytes of main data before the slot of `mp3_frame`, or all that are held."""
        return b"".join(self._data[area] for area in self._areas_before(mp3_frame, size))

    def put_main_data_before(self, mp3_frame: int, main_data: bytes) -> None:
        """Replaces the last bytes of main data before the slot of `mp3_frame`. They must be held."""
        done = 0
        for area in self._areas_before(mp3_frame, len(main_data)):
            size = area.stop - area.start
            self._data[area] = main_data[done : done + size]
            done += size

    @property
    def _known(self) -> _Layout:
        if self._layout is None:
            raise RuntimeError("the stream has no MP3 frame yet")
        return self._layout

    @property
    def _overhead_bytes(self) -> int:
        return HEADER_BYTES + self._known.side_info_bytes

    def _read_bits(self, mp3_frame: int, first: int, count: int) -> int:
        """Returns `count` bits of the side information of `mp3_frame`, from bit `first` on."""
        start = self._slots[mp3_frame - self.first] + HEADER_BYTES
        side_info_bytes = self._known.side_info_bytes
        side_info = int.from_bytes(self._data[start : start + side_info_bytes], "big")
        shift = 8 * side_info_bytes - (first + count)
        mask = (1 << count) - 1
        return (side_info >> shift) & mask

    def _areas_before(self, mp3_frame: int, size: int) -> list[slice]:
        """Returns the places of the last `size` bytes of main data before the slot of `mp3_frame`."""
        areas: list[slice] = []
        index = mp3_frame - self.first
        while size and index:
            start, end = self._slots[index - 1] + self._overhead_bytes, self._slots[index]
            areas.append(slice(max(start, end - size), end))
            size -= end - areas[-1].start
            index -= 1
        return areas[::-1]


def join(a: Mp3Frames, b: Mp3Frames, earliest: int) -> bytes | None:
    """Ends `a` before the MP3 frame at which `b` can best take over, and drops what `b` has before it.

    `earliest` is the first MP3 frame in which `b` has settled. Returns the rest of `a`, which the MP3 frames
    of `b` follow. Returns None, and changes nothing, if no MP3 frame fits.
    """
    fitting = []
    for mp3_frame in range(max(a.first + 1, earliest), min(a.end, b.end)):
        size = b.main_data_begin(mp3_frame)
        lost = a.main_data_begin(mp3_frame) - size
        if (
            lost >= 0
            and _mdct_windows_match(a, b, mp3_frame)
            and len(a.main_data_before(mp3_frame, size)) == size
        ):
            fitting.append((lost, -mp3_frame))
    if not fitting:
        return None
    # Lose as little of the reservoir as possible: the next MP3 frames would have used it. Of equal losses
    # take the latest MP3 frame, because B has settled most by then.
    mp3_frame = -min(fitting)[1]
    a.put_main_data_before(mp3_frame, b.main_data_before(mp3_frame, b.main_data_begin(mp3_frame)))
    b.take_before(mp3_frame)
    return a.take_before(mp3_frame)


def _mdct_windows_match(a: Mp3Frames, b: Mp3Frames, mp3_frame: int) -> bool:
    before, after = a.block_types(mp3_frame - 1)[-1], b.block_types(mp3_frame)[0]
    return all(_RIGHT_IS_SHORT[x] == _LEFT_IS_SHORT[y] for x, y in zip(before, after, strict=True))
