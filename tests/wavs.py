"""Makes right and wrong WAV files for the tests, and the sounds in them.

A sound is a float array of shape (sample frames, channels) between -1 and 1.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

Sound = NDArray[np.floating[Any]]
Chunk = tuple[bytes, bytes]

UNKNOWN_SIZE = 0xFFFFFFFF
PCM, FLOAT, EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
MEDIA_SUBTYPE = bytes.fromhex("000000001000800000aa00389b71")


@dataclass(frozen=True)
class Wav:
    """How to write a WAV. A field that is given replaces the right value."""

    bits: int = 16
    sample_bytes: int | None = None
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
    def order(self) -> Literal["<", ">"]:
        return ">" if self.magic == b"RIFX" else "<"

    @property
    def sample_frame_bytes(self) -> int:
        return self.channels * (self.sample_bytes or -(-self.bits // 8))

    def fmt(self) -> bytes:
        """Returns the body of the fmt chunk: 16 bytes, others (`fmt_bytes=18`) or 40 (`extensible=True`)."""
        align = self.sample_frame_bytes if self.block_align is None else self.block_align
        tag = EXTENSIBLE if self.extensible else self.tag
        body = struct.pack(
            f"{self.order}HHIIHH",
            tag,
            self.channels,
            self.rate,
            (self.rate * align) & 0xFFFFFFFF,
            align & 0xFFFF,
            self.bits,
        )
        if self.extensible:
            valid = self.bits if self.valid_bits is None else self.valid_bits
            subtype = struct.pack("<H", self.tag) + MEDIA_SUBTYPE if self.subtype is None else self.subtype
            guid = struct.unpack("<IHH8s", subtype)
            body += struct.pack(f"{self.order}HHIIHH8s", 22, valid, self.mask, *guid)
        size = len(body) if self.fmt_bytes is None else self.fmt_bytes
        return body[:size].ljust(size, b"\0")

    def header(self, audio_bytes: int) -> bytes:
        """Returns the file up to the audio, which has `audio_bytes`."""
        before = (*self.before_fmt, (b"fmt ", self.fmt()), *self.before_data)
        chunks = b"".join(chunk(*c, self.order) for c in before)
        after = sum(len(chunk(*c, self.order)) for c in self.after)
        right_riff_size = 4 + len(chunks) + 8 + audio_bytes + audio_bytes % 2 + after
        riff_size = right_riff_size if self.riff_size is None else self.riff_size
        data_size = audio_bytes if self.data_size is None else self.data_size
        return b"".join(
            (
                self.magic,
                struct.pack(f"{self.order}I", riff_size),
                self.form,
                chunks,
                b"data",
                struct.pack(f"{self.order}I", data_size),
            )
        )

    def build(self, sound: Sound) -> bytes:
        """Returns the whole file around `sound`."""
        audio = self.audio(sound)
        after = (chunk(*c, self.order) for c in self.after)
        return b"".join((self.header(len(audio)), audio, b"\0" * (len(audio) % 2), *after))

    def audio(self, sound: Sound) -> bytes:
        """Returns the body of the data chunk."""
        if self.tag == FLOAT:
            return sound.astype(f"{self.order}f{self.bits // 8}").tobytes()
        return pcm(sound, self.bits, self.sample_bytes, self.order)

    def stream(self, total_bytes: int, sound: Sound, piece_bytes: int = 1 << 16) -> Iterator[bytes]:
        """Yields a file of `total_bytes` piece by piece: the header, then `sound` over and over."""
        audio_bytes = total_bytes - len(self.header(0))
        yield self.header(audio_bytes)
        once = self.audio(sound)
        pieces = [once[start : start + piece_bytes] for start in range(0, len(once), piece_bytes)]
        for piece in cycle(pieces):
            if audio_bytes <= len(piece):
                yield piece[:audio_bytes]
                return
            yield piece
            audio_bytes -= len(piece)


def chunk(name: bytes, body: bytes, order: Literal["<", ">"] = "<") -> bytes:
    """Returns a RIFF chunk with its padding."""
    return name + struct.pack(f"{order}I", len(body)) + body + b"\0" * (len(body) % 2)


def ds64(audio_bytes: int, riff_bytes: int = 0, sample_frames: int = 0) -> Chunk:
    """Returns the chunk of an RF64 that holds the sizes."""
    return b"ds64", struct.pack("<QQQI", riff_bytes, audio_bytes, sample_frames, 0)


def pcm(sound: Sound, bits: int, sample_bytes: int | None = None, order: Literal["<", ">"] = "<") -> bytes:
    """Returns integer PCM, left-justified in its bytes. One-byte samples are unsigned."""
    sample_bytes = sample_bytes or -(-bits // 8)
    # A float has 53 significant bits.
    bits = min(bits, 53)
    scale = 1 << (bits - 1)
    samples: NDArray[np.int64] = np.rint(sound * scale).clip(-scale, scale - 1).astype(np.int64)
    samples <<= 8 * sample_bytes - bits
    if sample_bytes == 1:
        return (samples + 128).astype(np.uint8).tobytes()
    octets: NDArray[np.uint8] = np.frombuffer(samples.astype("<i8").tobytes(), dtype=np.uint8)
    octets = octets.reshape(-1, 8)[:, :sample_bytes]
    return (octets if order == "<" else octets[:, ::-1]).tobytes()


def encoded(sound: Sound, codec: str, rate: int = 44100, block_bytes: int = 1024) -> bytes:
    """Returns a WAV of one or two channels that FFmpeg writes with its codec of that name."""
    buffer = io.BytesIO()
    layout = "mono" if sound.shape[1] == 1 else "stereo"
    with av.open(buffer, mode="w", format="wav") as container:
        stream = container.add_stream(
            codec, rate=rate, layout=layout, options={"block_size": str(block_bytes)}
        )
        if not isinstance(stream, av.AudioStream):
            raise TypeError(f"{codec} is no codec of audio")
        frame = av.AudioFrame.from_ndarray(
            np.frombuffer(pcm(sound, 16), dtype="<i2").reshape(1, -1), format="s16", layout=layout
        )
        frame.sample_rate = rate
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return buffer.getvalue()


def of_scipy() -> dict[str, bytes]:
    """Returns the WAVs with which scipy tests its own reader, by file name."""
    package = find_spec("scipy")
    if package is None or package.origin is None:
        raise LookupError("the package scipy is missing, which holds a set of odd WAVs")
    folder = Path(package.origin).parent / "io" / "tests" / "data"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.wav"))}


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
    """Returns digital silence."""
    return np.zeros((round(seconds * rate), channels))


def music(seconds: float) -> Sound:
    """Returns real music of any length at 44.1 kHz in stereo: a few seconds over and over."""
    sample_frames = round(seconds * 44100)
    loop = _music_loop()
    return np.tile(loop, (-(-sample_frames // len(loop)), 1))[:sample_frames]


@cache
def _music_loop() -> Sound:
    package = find_spec("pygame")
    if package is None or package.origin is None:
        raise LookupError("the package pygame-ce is missing, which holds the tests' music")
    with av.open(Path(package.origin).parent / "examples" / "data" / "house_lo.mp3") as container:
        resampler = av.AudioResampler(format="s16", layout="stereo", rate=44100)
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    samples = np.concatenate([frame.to_ndarray().reshape(-1, 2) for frame in frames])
    return samples.astype(np.float32) / 32768


def _spread(mono: Sound, channels: int) -> Sound:
    return np.repeat(mono[:, np.newaxis], channels, axis=1)
