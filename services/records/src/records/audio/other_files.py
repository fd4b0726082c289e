"""Recognises what is sent instead of a WAV, and says what to do about it."""

from .chunk_search import RIFF_NAMES
from .errors import SAVE_AS_PCM, UnsupportedAudio, quote

# How files of other formats start: offset, bytes, name of the format, and its usual file name extension.
_OTHER_FILES = (
    (0, b"riff\x2e\x91\xcf\x11", "Sony Wave64", "w64"),
    (0, b"NIST_1A", "NIST SPHERE", "sph"),
    (0, b"Creative Voi", "Creative Voice", "voc"),
    (8, b"AIFF", "AIFF", "aiff"),
    (8, b"AIFC", "AIFF-C", "aiff"),
    (8, b"AVI ", "AVI", "avi"),
    (8, b"XWMA", "xWMA", "xwma"),
    (4, b"ftyp", "MP4, M4A or MOV", "m4a"),
    (0, b"ID3", "MP3", "mp3"),
    (0, b"OggS", "Ogg", "ogg"),
    (0, b"fLaC", "FLAC", "flac"),
    (0, b"caff", "Apple CAF", "caf"),
    (0, b".snd", "Sun AU", "au"),
    (0, b"wvpk", "WavPack", "wv"),
    (0, b"MAC ", "Monkey's Audio", "ape"),
    (0, b"#!AMR", "AMR", "amr"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM", "webm"),
    (0, b"0&\xb2u", "Windows Media", "wma"),
    (0, b"\xff\xf1", "AAC", "aac"),
    (0, b"\xff\xf9", "AAC", "aac"),
    (0, b"\xff\xe3", "MP3", "mp3"),
    (0, b"\xff\xf2", "MP3", "mp3"),
    (0, b"\xff\xf3", "MP3", "mp3"),
    (0, b"\xff\xfa", "MP3", "mp3"),
    (0, b"\xff\xfb", "MP3", "mp3"),
)
# How files start that FFmpeg does not decode either, or that are no audio, in lower case; what they are, and
# what to do about them.
_UNPACK = "Unpack it, and send the WAV inside."
_WEB_PAGE = "HTML, not audio. Send a WAV; what was saved is a web page."
_SILK = f"SILK, as messengers record it, which is not supported. {SAVE_AS_PCM}"
_OTHER_STARTS = (
    (b"fsb5", f"an FMOD sound bank, which is not supported. {SAVE_AS_PCM}"),
    (b"#!silk", _SILK),
    (b"\x02#!silk", _SILK),
    (b"\x1f\x8b", f"a gzip archive, not audio. {_UNPACK}"),
    (b"pk\x03\x04", f"a ZIP archive, not audio. {_UNPACK}"),
    (b"uklgr", "base64 text, not audio. Decode it (base64 -d), and send the WAV inside."),
    (b"data:", "the text of a data URI, not audio. Decode what follows its comma, and send the WAV inside."),
    (b"<!doctype", _WEB_PAGE),
    (b"<html", _WEB_PAGE),
    (b"version http", "a pointer of Git LFS, not audio. Fetch the WAV (git lfs pull), and send it."),
    (
        b"--",
        "a multipart form that is not sent as one. Send it with the Content-Type multipart/form-data and its "
        "boundary, as HTTP libraries do by themselves, or send the bytes of the WAV alone.",
    ),
    (
        b"[object ",
        "the name of a JavaScript object, not audio. Send the Blob or File itself, not the object "
        "turned into text.",
    ),
    (bytes(8), "a file that begins with zeros: it was never written, or it is damaged. Send the whole WAV."),
)
# What a program sends that has no value, in lower case.
_NO_VALUES = (b"undefined", b"null", b"nan", b"none")
_MIN_TEXT_BYTES = 4


def make_refusal(*starts: bytes) -> UnsupportedAudio:
    """Names the format of a file by its start. Behind an ID3 tag, the format comes first and the tag next."""
    for start in starts:
        for offset, mark, name, extension in _OTHER_FILES:
            if start.startswith(mark, offset):
                return UnsupportedAudio(
                    f"This is {name}, which is not supported; send a WAV. "
                    f"Convert it with: ffmpeg -i in.{extension} -c:a pcm_s16le out.wav"
                )
    start = starts[0].removeprefix(b"\xef\xbb\xbf").lstrip()
    for mark, words in _OTHER_STARTS:
        if start.lower().startswith(mark):
            return UnsupportedAudio(f"This is {words}")
    if start.rstrip().lower() in _NO_VALUES:
        return UnsupportedAudio(
            f"This is the text {quote(start.rstrip())}, not audio: the program that sent it "
            "had no recording. Send a WAV."
        )
    name = "text, not audio" if _is_text(starts[0]) else "not a WAV"
    return UnsupportedAudio(
        f"This is {name}: it starts with {quote(starts[0])}, not with 'RIFF', a size and 'WAVE'. Send a WAV."
    )


def _is_text(start: bytes) -> bool:
    is_ascii = all(octet in b"\t\n\r" or 0x20 <= octet < 0x7F for octet in start)  # noqa: PLR2004
    return is_ascii and len(start) >= _MIN_TEXT_BYTES and start[:4] not in RIFF_NAMES
