"""Converts a WAV into an MP3 in bounded memory. Knows neither HTTP nor SQL nor storage."""

from .converter import Converter, Properties
from .errors import BrokenAudio, OutOfProportion, TooLong, UnsupportedAudio
from .info import InfoFrame, read_info_frame
from .levels import Waveform
from .parallel import WAITING_BYTES_PER_THREAD, EncoderThreads

__all__ = [
    "WAITING_BYTES_PER_THREAD",
    "BrokenAudio",
    "Converter",
    "EncoderThreads",
    "InfoFrame",
    "OutOfProportion",
    "Properties",
    "TooLong",
    "UnsupportedAudio",
    "Waveform",
    "read_info_frame",
]
