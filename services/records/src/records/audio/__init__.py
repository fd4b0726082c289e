"""Converts a WAV into an MP3 in bounded memory. Knows neither HTTP nor SQL nor storage."""

from .converter import Converter, Properties
from .errors import BrokenAudio, OutOfProportion, TooLong, UnsupportedAudio
from .info import InfoFrame, read_info_frame
from .levels import Waveform
from .metadata import MAX_ID3_BYTES, MAX_METADATA_BYTES
from .parallel import WAITING_BYTES_PER_THREAD, EncoderThreads

__all__ = [
    "MAX_ID3_BYTES",
    "MAX_METADATA_BYTES",
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
