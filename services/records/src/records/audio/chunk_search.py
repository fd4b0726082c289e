"""Finds the names of RIFF chunks in audio, as fast as it arrives."""

import numpy as np

# What writers put behind the audio: chunks of the sources in `wav`, of EBU Tech 3285 and of audio programs.
KNOWN_CHUNKS = (
    *(b"LIST", b"id3 ", b"ID3 ", b"bext", b"cart", b"iXML", b"axml", b"chna", b"_PMX", b"CSET", b"DISP"),
    *(b"cue ", b"plst", b"smpl", b"inst", b"acid", b"strc", b"labl", b"note", b"ltxt", b"fact", b"PEAK"),
    *(b"JUNK", b"junk", b"PAD ", b"FLLR", b"afsp", b"minf", b"elm1", b"regn", b"umid", b"ResU", b"LGWV"),
    *(b"RIFF", b"RIFX", b"RF64", b"BW64"),
)
_NAME_BYTES = 4
_NAMES = np.array(sorted(int.from_bytes(name, "little") for name in KNOWN_CHUNKS), dtype="<u4")
_IS_FIRST_PAIR = np.zeros(1 << 16, dtype=bool)
_IS_FIRST_PAIR[_NAMES & 0xFFFF] = True
_NAME_STARTS = {name[:size] for name in KNOWN_CHUNKS for size in (1, 2, 3)}
# The temporary arrays of so many bytes stay in the cache of a core.
_BATCH_BYTES = 64 * 1024


def find_chunk(audio: memoryview, first: int) -> int:
    """Returns where the name of a known chunk begins, or may begin because the audio ends inside it.

    A RIFF file pads its chunks, so only `first` and every second byte behind it can begin one. Without a name
    it returns the length of the audio.
    """
    for start in range(first, len(audio) - _NAME_BYTES + 1, _BATCH_BYTES):
        at = _find_name(audio[start : start + _BATCH_BYTES + _NAME_BYTES - 2])
        if at is not None:
            return start + at
    for at in range(len(audio) - _NAME_BYTES + 1, len(audio)):
        if at >= first and at % 2 == first and bytes(audio[at:]) in _NAME_STARTS:
            return at
    return len(audio)


def _find_name(audio: memoryview) -> int | None:
    pairs = np.frombuffer(audio, dtype="<u2", count=len(audio) // 2)
    # Hardly any audio has four characters of a name in a row: bytes from 0x20 to 0x9F.
    has_characters = (pairs - np.uint16(0x2020)) & np.uint16(0x8080) == 0
    maybe = np.flatnonzero(has_characters[:-1] & has_characters[1:])
    maybe = maybe[_IS_FIRST_PAIR[pairs[maybe]]]
    names = pairs[maybe] | pairs[maybe + 1].astype("<u4") << 16
    found = maybe[_NAMES[np.searchsorted(_NAMES, names) % len(_NAMES)] == names]
    return 2 * int(found[0]) if len(found) else None
