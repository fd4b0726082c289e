"""Reads and writes the sizes in an ID3v2 tag (ID3v2.4, sections 3.1 and 6.2)."""

HEADER_BYTES = 10
# In this version the sizes of ID3 frames are synchsafe, too.
SYNCHSAFE_VERSION = 4
_FOOTER_FLAG = 0x10
SYNCHSAFE_BITS = 7
"""So many bits has a byte of a synchsafe number."""


def read_tag_bytes(header: bytes) -> int:
    """Returns the length of a whole tag, with its header and its footer, from the 10 bytes of its header."""
    footer_bytes = HEADER_BYTES if header[5] & _FOOTER_FLAG else 0
    return HEADER_BYTES + read_size(header[6:HEADER_BYTES]) + footer_bytes


def read_size(octets: bytes, bits: int = SYNCHSAFE_BITS) -> int:
    """Reads a big-endian number, of which each byte has 7 or 8 bits."""
    size = 0
    for octet in octets:
        size = size << bits | octet % (1 << bits)
    return size


def make_synchsafe(number: int) -> bytes:
    """Writes a synchsafe number of four bytes."""
    return bytes((number >> shift) % (1 << SYNCHSAFE_BITS) for shift in (21, 14, 7, 0))
