"""Blocks of ADPCM, four bits a sample: IMA's and Microsoft's.

After "Recommended Practices for Enhancing Digital Audio Compatibility in Multimedia Systems" (IMA, 1992) and
Microsoft's "New Multimedia Data Types and Data Techniques" (1994).
"""

import numpy as np
from numpy.typing import NDArray

from .formats import Codec, Format
from .pcm import audioop

_IMA_HEAD_BYTES = 4
_IMA_LAST_STEP = 88
_MS_HEAD_BYTES = 7
# By a sample's four bits: how the step to the next one grows, in 256ths.
_MS_ADAPTATION = np.array([230, 230, 230, 230, 307, 409, 512, 614, 768, 614, 512, 409, 307, 230, 230, 230])
# What the two samples before give to the next one, in 256ths. The fmt chunk repeats this table; nobody writes
# another one, and FFmpeg does not read it either.
_MS_COEFFICIENTS = np.array([(256, 0), (512, -256), (0, 0), (192, 64), (240, 0), (460, -208), (392, -232)])
_MS_LEAST_STEP = 16
# A step below this can grow once more without leaving 32 bit.
_MS_LARGEST_STEP = (2**31 - 1) // 768


def decode_blocks(audio: bytes | bytearray | memoryview, source: Format) -> NDArray[np.float32]:
    """Returns whole blocks, and perhaps a short one at their end, as float32 of shape (frames, channels).

    Full scale is 32768. A short block decodes as far as it goes; bytes that are no start of one are dropped.
    """
    decode = _decode_ima if source.codec is Codec.IMA_ADPCM else _decode_ms
    octets = np.frombuffer(audio, dtype=np.uint8)
    whole = len(octets) - len(octets) % source.block_bytes
    parts = [octets[:whole].reshape(-1, source.block_bytes), octets[np.newaxis, whole:]]
    samples = [decode(part, source.channels) for part in parts if part.size and source.frames(part.shape[1])]
    if not samples:
        return np.empty((0, source.channels), dtype=np.float32)
    return np.concatenate(samples).astype(np.float32)


def _decode_ima(blocks: NDArray[np.uint8], channels: int) -> NDArray[np.int16]:
    """Decodes blocks of shape (blocks, bytes): a head of each channel, then four bytes of each in turn."""
    head_bytes = _IMA_HEAD_BYTES * channels
    groups = blocks.shape[1] // head_bytes - 1
    heads = blocks[:, :head_bytes].reshape(-1, channels, _IMA_HEAD_BYTES)
    first = np.ascontiguousarray(heads[..., :2]).view("<i2")[..., 0]
    steps = np.minimum(heads[..., 2], _IMA_LAST_STEP)
    samples = np.empty((len(blocks), 1 + 8 * groups, channels), dtype=np.int16)
    samples[:, 0] = first
    if groups:
        body = blocks[:, head_bytes : head_bytes * (1 + groups)].reshape(-1, groups, channels, 4)
        # The earlier sample is in the lower four bits of a WAV's byte, and in the upper ones of audioop's.
        body = np.ascontiguousarray((body << 4 | body >> 4).transpose(0, 2, 1, 3))
        for block, channel in np.ndindex(first.shape):
            state = int(first[block, channel]), int(steps[block, channel])
            pcm, _ = audioop.adpcm2lin(body[block, channel].tobytes(), 2, state)
            samples[block, 1:, channel] = np.frombuffer(pcm, dtype=np.int16)
    return samples.reshape(-1, channels)


def _decode_ms(blocks: NDArray[np.uint8], channels: int) -> NDArray[np.int32]:
    """Decodes blocks of shape (blocks, bytes), all of them side by side, sample after sample."""
    heads = blocks[:, channels : _MS_HEAD_BYTES * channels].copy().view("<i2").astype(np.int32)
    step, second, first = (heads[:, at * channels : (at + 1) * channels].ravel() for at in range(3))
    predictors = np.minimum(blocks[:, :channels].ravel(), len(_MS_COEFFICIENTS) - 1)
    newer_gain, older_gain = _MS_COEFFICIENTS[predictors].T.astype(np.int32)

    body = blocks[:, _MS_HEAD_BYTES * channels :]
    frames = 2 * body.shape[1] // channels
    in_turn = np.stack([body >> 4, body & 0xF], axis=-1).reshape(len(blocks), frames, channels)
    codes = in_turn.transpose(1, 0, 2).reshape(frames, len(step))
    signed = (codes ^ 8).astype(np.int32) - 8
    growth = _MS_ADAPTATION.astype(np.int32)[codes]

    # Shape (frames, blocks * channels): every row is one sample of all blocks.
    samples = np.empty((2 + frames, len(step)), dtype=np.int32)
    samples[0], samples[1] = first, second
    scratch = np.empty_like(step)
    for sample, newer, older, code, factor in zip(
        samples[2:], samples[1:-1], samples[:-2], signed, growth, strict=True
    ):
        np.multiply(newer, newer_gain, out=sample)
        np.multiply(older, older_gain, out=scratch)
        np.add(sample, scratch, out=sample)
        np.right_shift(sample, 8, out=sample)
        np.multiply(code, step, out=scratch)
        np.add(sample, scratch, out=sample)
        np.maximum(sample, -32768, out=sample)
        np.minimum(sample, 32767, out=sample)
        step *= factor
        step >>= 8
        np.maximum(step, _MS_LEAST_STEP, out=step)
        np.minimum(step, _MS_LARGEST_STEP, out=step)
    return samples.reshape(-1, len(blocks), channels).transpose(1, 0, 2).reshape(-1, channels)
