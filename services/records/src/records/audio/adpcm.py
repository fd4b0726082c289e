"""Decodes IMA, Xbox and Microsoft ADPCM, four bits a sample.

Sources: "Recommended Practices for Enhancing Digital Audio Compatibility in Multimedia Systems" (IMA, 1992)
and Microsoft's "New Multimedia Data Types and Data Techniques" (1994).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .formats import ADPCM_HEAD_BYTES, Codec, Format
from .pcm import audioop

_IMA_LAST_STEP = 88
# A byte holds two samples of four bits.
_UPPER_SHIFT, _LOWER_MASK = 4, 0xF
# The highest of the four bits is the sign.
_SIGN_BIT = 8
# Microsoft's fractions have a denominator of 256.
_FRACTION_BITS = 8
# By a sample's four bits: the factor by which the step grows, in 256ths.
_MS_ADAPTATION = np.array([230, 230, 230, 230, 307, 409, 512, 614, 768, 614, 512, 409, 307, 230, 230, 230])
# The gains with which the previous sample and the one before it predict a sample, in 256ths. The fmt chunk
# repeats this table. Nobody writes another table there, and FFmpeg does not read it either.
_MS_COEFFICIENTS = np.array([(256, 0), (512, -256), (0, 0), (192, 64), (240, 0), (460, -208), (392, -232)])
_MS_MIN_STEP = 16
# A step up to this can grow once more and still fit in 32 bit.
_MS_MAX_STEP = (2**31 - 1) // 768


def decode_adpcm(audio: bytes | bytearray | memoryview, source: Format) -> NDArray[np.float32]:
    """Decodes ADPCM blocks to float32 of shape (sample frames, channels).

    Full scale is 32768. A short ADPCM block decodes as far as it goes; one without a whole head is dropped.
    """
    decode = _DECODERS[source.codec]
    octets = np.frombuffer(audio, dtype=np.uint8)
    whole_bytes = len(octets) - len(octets) % source.block_align_bytes
    groups = octets[:whole_bytes].reshape(-1, source.block_align_bytes), octets[np.newaxis, whole_bytes:]
    samples = [
        decode(adpcm_blocks, source.channels)
        for adpcm_blocks in groups
        if adpcm_blocks.size and source.sample_frames(adpcm_blocks.shape[1])
    ]
    if not samples:
        return np.empty((0, source.channels), dtype=np.float32)
    return np.concatenate(samples).astype(np.float32)


def _decode_ima(adpcm_blocks: NDArray[np.uint8], channels: int) -> NDArray[np.int16]:
    """Decodes an array of shape (ADPCM blocks, bytes).

    An ADPCM block has a head for each channel, then groups: four bytes, eight samples, of each channel in
    turn.
    """
    head_bytes = ADPCM_HEAD_BYTES[Codec.IMA_ADPCM] * channels
    groups = adpcm_blocks.shape[1] // head_bytes - 1
    heads = adpcm_blocks[:, :head_bytes].reshape(-1, channels, ADPCM_HEAD_BYTES[Codec.IMA_ADPCM])
    first = np.ascontiguousarray(heads[..., :2]).view("<i2")[..., 0]
    steps = np.minimum(heads[..., 2], _IMA_LAST_STEP)
    samples = np.empty((len(adpcm_blocks), 1 + 8 * groups, channels), dtype=np.int16)
    samples[:, 0] = first
    if groups:
        body = adpcm_blocks[:, head_bytes : head_bytes * (1 + groups)].reshape(-1, groups, channels, 4)
        # A WAV has the earlier sample in the lower four bits of a byte; audioop reads it from the upper four.
        swapped = (body << _UPPER_SHIFT) | (body >> _UPPER_SHIFT)
        body = np.ascontiguousarray(swapped.transpose(0, 2, 1, 3))
        for block, channel in np.ndindex(first.shape):
            state = int(first[block, channel]), int(steps[block, channel])
            pcm, _ = audioop.adpcm2lin(body[block, channel].tobytes(), 2, state)
            samples[block, 1:, channel] = np.frombuffer(pcm, dtype=np.int16)
    return samples.reshape(-1, channels)


def _decode_xbox(adpcm_blocks: NDArray[np.uint8], channels: int) -> NDArray[np.int16]:
    """Decodes an array of shape (ADPCM blocks, bytes): IMA ADPCM without the last sample of each block."""
    samples = _decode_ima(adpcm_blocks, channels).reshape(len(adpcm_blocks), -1, channels)
    return samples[:, :-1].reshape(-1, channels)


def _decode_ms(adpcm_blocks: NDArray[np.uint8], channels: int) -> NDArray[np.int32]:
    """Decodes an array of shape (ADPCM blocks, bytes): sample after sample, of all ADPCM blocks at once."""
    heads = (
        adpcm_blocks[:, channels : ADPCM_HEAD_BYTES[Codec.MS_ADPCM] * channels]
        .copy()
        .view("<i2")
        .astype(np.int32)
    )
    step, second, first = (heads[:, at * channels : (at + 1) * channels].ravel() for at in range(3))
    predictors = np.minimum(adpcm_blocks[:, :channels].ravel(), len(_MS_COEFFICIENTS) - 1)
    newer_gain, older_gain = _MS_COEFFICIENTS[predictors].T.astype(np.int32)

    body = adpcm_blocks[:, ADPCM_HEAD_BYTES[Codec.MS_ADPCM] * channels :]
    sample_frames = 2 * body.shape[1] // channels
    in_turn = np.stack([body >> _UPPER_SHIFT, body & _LOWER_MASK], axis=-1)
    in_turn = in_turn.reshape(len(adpcm_blocks), sample_frames, channels)
    codes = in_turn.transpose(1, 0, 2).reshape(sample_frames, len(step))
    signed = (codes ^ _SIGN_BIT).astype(np.int32) - _SIGN_BIT
    growth = _MS_ADAPTATION.astype(np.int32)[codes]

    # Shape (sample frames, ADPCM blocks * channels): a row has one sample frame of every ADPCM block.
    samples = np.empty((2 + sample_frames, len(step)), dtype=np.int32)
    samples[0], samples[1] = first, second
    scratch = np.empty_like(step)
    for sample, newer, older, code, factor in zip(
        samples[2:], samples[1:-1], samples[:-2], signed, growth, strict=True
    ):
        np.multiply(newer, newer_gain, out=sample)
        np.multiply(older, older_gain, out=scratch)
        np.add(sample, scratch, out=sample)
        np.right_shift(sample, _FRACTION_BITS, out=sample)
        np.multiply(code, step, out=scratch)
        np.add(sample, scratch, out=sample)
        np.maximum(sample, -32768, out=sample)
        np.minimum(sample, 32767, out=sample)
        step *= factor
        step >>= _FRACTION_BITS
        np.maximum(step, _MS_MIN_STEP, out=step)
        np.minimum(step, _MS_MAX_STEP, out=step)
    return samples.reshape(-1, len(adpcm_blocks), channels).transpose(1, 0, 2).reshape(-1, channels)


_DECODERS: dict[Codec, Callable[[NDArray[np.uint8], int], NDArray[Any]]] = {
    Codec.IMA_ADPCM: _decode_ima,
    Codec.XBOX_ADPCM: _decode_xbox,
    Codec.MS_ADPCM: _decode_ms,
}
