"""Converts a WAV into an MP3 in bounded memory. Knows neither HTTP nor SQL nor storage."""

from .converter import Converter, Properties
from .errors import BrokenAudio, TooLong, UnsupportedAudio
from .levels import Waveform
from .parallel import EncoderThreads

__all__ = [
    "BrokenAudio",
    "Converter",
    "EncoderThreads",
    "Properties",
    "TooLong",
    "UnsupportedAudio",
    "Waveform",
]
