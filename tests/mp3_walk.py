"""Reads the MP3 frames of a stream and checks that the stream is valid (ISO/IEC 11172-3 and 13818-3)."""

from dataclasses import dataclass

SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
BITRATES = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


@dataclass(frozen=True)
class Frame:
    """One MP3 frame. Positions count bytes of main data only, without headers and side information."""

    sample_rate: int
    bitrate_kbps: int
    channels: int
    samples: int
    slot_begin: int
    slot_end: int
    data_begin: int
    data_end: int


def walk(mp3: bytes) -> list[Frame]:
    """Returns all MP3 frames in order; raises AssertionError if a header is wrong or bytes are left over."""
    frames: list[Frame] = []
    position = slot_begin = 0
    while position < len(mp3):
        head = int.from_bytes(mp3[position : position + 4], "big")
        assert head >> 21 == 0x7FF, f"no MP3 frame at byte {position}"
        version, layer, no_checksum = head >> 19 & 3, head >> 17 & 3, head >> 16 & 1
        assert version in SAMPLE_RATES
        assert (layer, no_checksum) == (1, 1)
        bitrate = BITRATES[3 if version == 3 else 2][head >> 12 & 15]
        rate = SAMPLE_RATES[version][head >> 10 & 3]
        channels = 1 if head >> 6 & 3 == 3 else 2
        samples = 1152 if version == 3 else 576
        size = samples // 8 * bitrate * 1000 // rate + (head >> 9 & 1)
        side_bytes = {(3, 1): 17, (3, 2): 32}.get((version, channels), 9 if channels == 1 else 17)
        assert position + size <= len(mp3), f"the MP3 frame at byte {position} is cut short"
        begin, bits = _read_side_info(mp3[position + 4 : position + 4 + side_bytes], version == 3, channels)
        slot_end = slot_begin + size - 4 - side_bytes
        data_begin = slot_begin - begin
        frames.append(
            Frame(
                rate, bitrate, channels, samples, slot_begin, slot_end, data_begin, data_begin + -(-bits // 8)
            )
        )
        position, slot_begin = position + size, slot_end
    return frames


def assert_valid(frames: list[Frame]) -> None:
    """Checks that all MP3 frames have one format, and that their main data do not overlap or end too late."""
    kinds = {(frame.sample_rate, frame.bitrate_kbps, frame.channels) for frame in frames}
    assert len(kinds) == 1
    end = 0
    for number, frame in enumerate(frames):
        assert frame.data_begin >= end, f"the main data of MP3 frames {number - 1} and {number} overlap"
        assert frame.data_end <= frame.slot_end, f"the main data of MP3 frame {number} end after its slot"
        end = frame.data_end


def _read_side_info(side_info: bytes, is_mpeg1: bool, channels: int) -> tuple[int, int]:
    """Returns main_data_begin in bytes, and the number of bits of main data in all granules."""
    bits = "".join(f"{byte:08b}" for byte in side_info)
    begin_bits, private_bits = (9, {1: 5, 2: 3}[channels]) if is_mpeg1 else (8, channels)
    position = begin_bits + private_bits + (4 * channels if is_mpeg1 else 0)
    granules, channel_bits = (2, 59) if is_mpeg1 else (1, 63)
    lengths = [int(bits[position + number * channel_bits :][:12], 2) for number in range(granules * channels)]
    return int(bits[:begin_bits], 2), sum(lengths)
