"""A WAV in, an MP3 out, in bounded memory; knows neither HTTP nor SQL nor storage."""

from .converter import Converter, Properties
from .errors import BrokenAudio, TooLong, UnsupportedAudio
from .levels import Waveform

__all__ = ["BrokenAudio", "Converter", "Properties", "TooLong", "UnsupportedAudio", "Waveform"]
