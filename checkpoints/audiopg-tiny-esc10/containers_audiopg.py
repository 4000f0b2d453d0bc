"""What the containers of recordings promise: how many bytes of sound, against how many are there, before any decoding.

libsndfile lowers a promise to what it finds and says nothing, so that half a download passes for a short recording.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from io import SEEK_END
from typing import BinaryIO

# What is written to a pipe cannot say how long it will be: ffmpeg writes all ones, sox and arecord about 2 ** 31, less
# or more the length of the header.
LENGTHS_OF_PIPES = (range(2**31 - 2**16, 2**31 + 2**16), range(2**32 - 2**16, 2**32), range(2**63, 2**64))

# Enough for every tag, picture and cue sheet, and an end to a chain that a damaged file never ends.
MOST_CHUNKS = 10_000

# The longest page there is, with its header: 255 segments of 255 bytes.
LONGEST_OGG_PAGE = 27 + 255 + 255 * 255

_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"


def cut_short(file: BinaryIO) -> str | None:
    r"""How a recording ends before its own header says, if it does.

    Args:
        file: Open for reading; where it stands when this returns is undefined.

    Returns:
        A clause with what is there and what was promised; None if all is there, or nothing was promised, or what is
        promised only shows while decoding (FLAC, and MP3 with a table of its length).

    Example:
        >>> from io import BytesIO
        >>> cut_short(BytesIO(b"RIFF\x2c\0\0\0WAVEdata\x08\0\0\0abc"))
        'it ends after 3 of 8 bytes of sound'
    """
    size = file.seek(0, SEEK_END)
    file.seek(0)
    head = file.read(40)
    if head[:4] == b"OggS":
        return _ogg_cut_short(file, size, serial=head[14:18])
    found = _sound(file, head)
    if found is None:
        return _mp3_cut_short(file, size)
    start, promised = found
    there = max(0, size - start)
    if there >= promised or any(promised in lengths for lengths in LENGTHS_OF_PIPES):
        return None
    return f"it ends after {there} of {promised} bytes of sound"


def _sound(file: BinaryIO, head: bytes) -> tuple[int, int] | None:
    """Where the bytes of sound start, and how many of them the header promises."""
    magic, kind = head[:4], head[8:12]
    if magic in (b"RIFF", b"RIFX", b"RF64") and kind == b"WAVE":
        return _wav_sound(file, ">" if magic == b"RIFX" else "<")
    if magic == b"FORM" and kind in (b"AIFF", b"AIFC"):
        chunks = _chunks(file, start=12, header=">4sI", alignment=2)
        return next(((start, size) for name, start, size in chunks if name == b"SSND"), None)
    if head[:16] == _W64_RIFF:
        chunks = _chunks(file, start=40, header="<16sQ", alignment=8, counts_header=True)
        return next(((start, size) for name, start, size in chunks if name[:4] == b"data"), None)
    if magic == b"caff":
        chunks = _chunks(file, start=8, header=">4sQ", alignment=1)
        return next(((start, size) for name, start, size in chunks if name == b"data"), None)
    if magic in (b".snd", b"dns.") and len(head) >= 12:
        start, promised = struct.unpack(">II" if magic == b".snd" else "<II", head[4:12])
        return start, promised
    return _sphere_sound(file) if head[:7] == b"NIST_1A" else None


def _wav_sound(file: BinaryIO, order: str) -> tuple[int, int] | None:
    """Of RIFF, RIFX and RF64, whose `ds64` has the sizes that 32 bits cannot hold."""
    long_size = None
    for name, start, size in _chunks(file, start=12, header=f"{order}4sI", alignment=2):
        if name == b"ds64":
            sizes = file.read(16)
            long_size = struct.unpack("<8xQ", sizes)[0] if len(sizes) == 16 else None
        if name == b"data":
            return start, long_size if long_size is not None and size == 0xFFFFFFFF else size
    return None


def _chunks(
    file: BinaryIO, *, start: int, header: str, alignment: int, counts_header: bool = False
) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and size of one chunk after the other; the file stands at the start of the last one given."""
    length = struct.calcsize(header)
    for _ in range(MOST_CHUNKS):
        file.seek(start)
        fields = file.read(length)
        if len(fields) < length:
            return
        name, size = struct.unpack(header, fields)
        size = max(0, size - length) if counts_header else size
        start += length
        yield name, start, size
        start += size + -size % alignment
        if start >= 2**63:
            return


def _sphere_sound(file: BinaryIO) -> tuple[int, int] | None:
    """Of NIST SPHERE, whose header is text."""
    file.seek(0)
    lines = file.read(1024)
    if b"sample_coding" in lines and b"shorten" in lines:
        return None
    numbers = {name: int(value) for name, value in re.findall(rb"(\w+) -i (\d{1,15})\b", lines)}
    header = re.match(rb"NIST_1A\r?\n\s*(\d{1,6})", lines)
    if header is None or b"sample_count" not in numbers:
        return None
    promised = numbers[b"sample_count"] * numbers.get(b"sample_n_bytes", 1) * numbers.get(b"channel_count", 1)
    return int(header[1]), promised


def _ogg_cut_short(file: BinaryIO, size: int, serial: bytes) -> str | None:
    """Ogg promises no length, but its last page says that it is the last (RFC 3533)."""
    file.seek(max(0, size - 2 * LONGEST_OGG_PAGE))
    tail = file.read()
    page = tail[tail.rfind(b"OggS\0") :] if b"OggS\0" in tail else b""
    header = page[: 27 + page[26]] if len(page) > 26 else page
    if len(header) < 27 or len(header) < 27 + header[26]:
        return f"it ends after {size} bytes, where the header of a page should be"
    length = len(header) + sum(header[27:])
    if len(page) < length:
        return f"it ends after {len(page)} of {length} bytes of a page of Ogg, the file's byte {size}"
    if _ogg_checksum(page[:22] + bytes(4) + page[26:length]) != int.from_bytes(page[22:26], "little"):
        return f"it ends after {size} bytes with a page of Ogg that is damaged"
    if not page[5] & 4:
        return f"it ends after {size} bytes with a page of Ogg that another one should follow"
    if page[14:18] != serial:
        return "it is a chain of recordings in one file, of which libsndfile reads the first alone"
    return None


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 of the highest bit first, from 0 on; that of `zlib` has the lowest first and inverts before and after."""
    crc = zlib.crc32(page.translate(_BITS_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


_BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

# Kilobits per second by [MPEG 1 or not][layer][index], and samples per second of MPEG 1 (ISO 11172-3, 13818-3).
_MP3_BITRATES = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_RATES = (44100, 48000, 32000)


def _mp3_cut_short(file: BinaryIO, size: int) -> str | None:
    """MP3 promises no length but in a table that some have, and each frame says how long it is itself."""
    for position, length, _ in _mp3_frames(file):
        if position + length > size:
            return f"it ends after {size - position} of {length} bytes of a frame of MP3, the file's byte {size}"
    return None


def mp3_samples(file: BinaryIO) -> int:
    r"""Samples per channel of the frames of MP3 that follow each other from the start of a file.

    Args:
        file: Open for reading; where it stands when this returns is undefined.

    Returns:
        Their number; a decoder gives less, for it leaves out what the encoder added at both ends.

    Example:
        >>> from io import BytesIO
        >>> mp3_samples(BytesIO(2 * (b"\xff\xfb\x10\0" + bytes(100))))
        2304
    """
    return sum(samples for _, _, samples in _mp3_frames(file))


def _mp3_frames(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Position, bytes and samples of one frame after the other, until something else stands where one should."""
    file.seek(0)
    tag = file.read(10)
    # The size of an ID3 tag has seven bits to a byte.
    position = 10 + sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(tag[6:])) if tag[:3] == b"ID3" else 0
    while True:
        file.seek(position)
        frame = _mp3_frame(file.read(4))
        if frame is None:  # a tag at the end, or damage, which is the decoder's to judge
            return
        length, samples = frame
        yield position, length, samples
        position += length


def _mp3_frame(header: bytes) -> tuple[int, int] | None:
    """Bytes and samples of an MPEG audio frame by its header; None if it is none, or does not say how long it is."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)  # version: 0 is MPEG 2.5, 2 MPEG 2, 3 MPEG 1
    bitrate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    bits = 1000 * _MP3_BITRATES[version == 3, layer][bitrate]
    hertz = _MP3_RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        return (12 * bits // hertz + padding) * 4, 384
    samples = 576 if layer == 3 and version != 3 else 1152
    return samples // 8 * bits // hertz + padding, samples


__all__ = ["cut_short", "mp3_samples"]
