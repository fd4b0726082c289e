"""The encoder of silence, which other tests use, makes the bytes that LAME makes."""

import random

import pytest

from records.audio.encoder import Encoder
from tests.integration.silence_encoder import BITRATE_KBPS, CHANNELS, SAMPLE_RATE, SilenceEncoder


@pytest.mark.parametrize("seed", range(20))
def test_however_the_silence_arrives_lame_makes_the_same_bytes_at_the_same_time(seed: int) -> None:
    choose = random.Random(seed)
    lame, silence = Encoder(SAMPLE_RATE, CHANNELS, BITRATE_KBPS), SilenceEncoder()
    for _ in range(choose.randint(1, 9)):
        pcm = bytes(2 * choose.choice([1, 575, 576, 577, 1151, 1152, 1153, 5000, 16384]))
        assert silence.encode(pcm) == lame.encode(pcm)
    assert silence.finish() == lame.finish()


def test_the_encoder_of_silence_refuses_sound() -> None:
    with pytest.raises(ValueError, match="not silent"):
        SilenceEncoder().encode(b"\0\0\1\0")
