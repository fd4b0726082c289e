"""WAV files for the tests, right and wrong ones, and the sounds in them.

A sound is a float array of shape (frames, channels) between -1 and 1.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Sound = NDArray[np.floating[Any]]
Chunk = tuple[bytes, bytes]

UNKNOWN_SIZE = 0xFFFFFFFF
PCM, EXTENSIBLE = 0x0001, 0xFFFE
MEDIA_SUBTYPE = bytes.fromhex("000000001000800000aa00389b71")


@dataclass(frozen=True)
class Wav:
    """How to write a WAV; every field that is given wins over what would be right."""

    bits: int = 16
    channels: int = 2
    rate: int = 44100
    tag: int = PCM
    extensible: bool = False
    mask: int = 0
    valid_bits: int | None = None
    subtype: bytes | None = None
    fmt_bytes: int | None = None
    block_align: int | None = None
    before_fmt: tuple[Chunk, ...] = ()
    before_data: tuple[Chunk, ...] = ()
    after: tuple[Chunk, ...] = ()
    magic: bytes = b"RIFF"
    form: bytes = b"WAVE"
    riff_size: int | None = None
    data_size: int | None = None

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.bits // 8

    def fmt(self) -> bytes:
        """Returns the body of the fmt chunk: 16 bytes, 18 (`fmt_bytes=18`) or 40 (`extensible=True`)."""
        align = self.frame_bytes if self.block_align is None else self.block_align
        tag = EXTENSIBLE if self.extensible else self.tag
        body = struct.pack(
            "<HHIIHH",
            tag,
            self.channels,
            self.rate,
            self.rate * align & 0xFFFFFFFF,
            align & 0xFFFF,
            self.bits,
        )
        if self.extensible:
            valid = self.bits if self.valid_bits is None else self.valid_bits
            subtype = struct.pack("<H", self.tag) + MEDIA_SUBTYPE if self.subtype is None else self.subtype
            body += struct.pack("<HHI16s", 22, valid, self.mask, subtype)
        size = len(body) if self.fmt_bytes is None else self.fmt_bytes
        return body[:size].ljust(size, b"\0")

    def header(self, audio_bytes: int) -> bytes:
        """Returns all that comes before `audio_bytes` of audio."""
        chunks = b"".join(chunk(*c) for c in (*self.before_fmt, (b"fmt ", self.fmt()), *self.before_data))
        after = sum(len(chunk(*c)) for c in self.after)
        right_riff_size = 4 + len(chunks) + 8 + audio_bytes + audio_bytes % 2 + after
        riff_size = right_riff_size if self.riff_size is None else self.riff_size
        data_size = audio_bytes if self.data_size is None else self.data_size
        return b"".join(
            (
                self.magic,
                struct.pack("<I", riff_size),
                self.form,
                chunks,
                b"data",
                struct.pack("<I", data_size),
            )
        )

    def build(self, sound: Sound) -> bytes:
        """Returns the whole file around `sound`."""
        audio = pcm(sound, self.bits)
        return b"".join(
            (self.header(len(audio)), audio, b"\0" * (len(audio) % 2), *(chunk(*c) for c in self.after))
        )

    def stream(self, total_bytes: int, sound: Sound, piece_bytes: int = 1 << 16) -> Iterator[bytes]:
        """Yields a file of `total_bytes` in all, made on the way: the header, then `sound` over and over."""
        audio_bytes = total_bytes - len(self.header(0))
        yield self.header(audio_bytes)
        once = pcm(sound, self.bits)
        pieces = [once[start : start + piece_bytes] for start in range(0, len(once), piece_bytes)]
        for piece in cycle(pieces):
            if audio_bytes <= len(piece):
                yield piece[:audio_bytes]
                return
            yield piece
            audio_bytes -= len(piece)


def chunk(name: bytes, body: bytes) -> bytes:
    """Returns a RIFF chunk with its padding."""
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def pcm(sound: Sound, bits: int) -> bytes:
    """Returns integer PCM: little-endian, and unsigned where it is of 8 bit."""
    scale = 1 << bits - 1
    samples: NDArray[np.int64] = np.rint(sound * scale).clip(-scale, scale - 1).astype(np.int64)
    if bits == 8:
        return (samples + 128).astype(np.uint8).tobytes()
    octets: NDArray[np.uint8] = np.frombuffer(samples.astype("<i8").tobytes(), dtype=np.uint8)
    return octets.reshape(-1, 8)[:, : bits // 8].tobytes()


def sine(hertz: float = 440.0, seconds: float = 1.0, rate: int = 44100, channels: int = 2) -> Sound:
    """Returns a tone at half of full scale, the same in every channel."""
    times = np.arange(round(seconds * rate)) / rate
    return _spread(0.5 * np.sin(2 * np.pi * hertz * times), channels)


def sweep(seconds: float = 1.0, rate: int = 44100, channels: int = 2, highest: float = 15000.0) -> Sound:
    """Returns a tone that climbs from 50 Hz to 0.35 of the rate, or `highest`, at half of full scale."""
    times = np.arange(round(seconds * rate)) / rate
    top = min(0.35 * rate, highest)
    return _spread(0.5 * np.sin(2 * np.pi * (50 + (top - 50) * times / (2 * seconds)) * times), channels)


def noise(seconds: float = 1.0, rate: int = 44100, channels: int = 2) -> Sound:
    """Returns white noise, the same at every call and different in every channel."""
    return np.random.default_rng(seed=1).uniform(-0.5, 0.5, (round(seconds * rate), channels))


def silence(seconds: float = 1.0, rate: int = 44100, channels: int = 2) -> Sound:
    """Returns nothing to be heard."""
    return np.zeros((round(seconds * rate), channels))


def music(seconds: float) -> Sound:
    """Returns real music of any length at 44.1 kHz in stereo, which is a few seconds over and over."""
    frames = round(seconds * 44100)
    loop = _music_loop()
    return np.tile(loop, (-(-frames // len(loop)), 1))[:frames]


@cache
def _music_loop() -> Sound:
    package = find_spec("pygame")
    if package is None or package.origin is None:
        raise LookupError("the tests' music comes with the package pygame-ce")
    with av.open(Path(package.origin).parent / "examples" / "data" / "house_lo.mp3") as container:
        resampler = av.AudioResampler(format="s16", layout="stereo", rate=44100)
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    samples = np.concatenate([frame.to_ndarray().reshape(-1, 2) for frame in frames])
    return samples.astype(np.float32) / 32768


def _spread(mono: Sound, channels: int) -> Sound:
    return np.repeat(mono[:, np.newaxis], channels, axis=1)
