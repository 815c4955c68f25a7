"""Recognising pictures by their first bytes: only what is one of four formats, and not too large to unpack, is shown.

Standard library only; nothing is unpacked here. A name or a type that a program has given counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

HEAD_BYTES = 256 * 1024  # the size of a JPEG stands behind its profile and its thumbnail
# A browser unpacks a picture to 4 bytes a pixel, however few bytes it has in the file.
PIXELS_AT_MOST = 40_000_000


@dataclass(frozen=True, slots=True)
class Picture:
    content_type: str
    width: int
    height: int

    @property
    def is_too_large(self) -> bool:
        return self.width * self.height > PIXELS_AT_MOST


def recognise(head: bytes) -> Picture | None:
    """What the first bytes of a file say: a PNG, JPEG, GIF or WebP picture and its size, or None."""
    size = None
    content_type = ""
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        content_type, size = "image/png", (_big(head[16:20]), _big(head[20:24]))
    elif head.startswith((b"GIF87a", b"GIF89a")):
        content_type, size = "image/gif", (_little(head[6:8]), _little(head[8:10]))
    elif head.startswith(b"\xff\xd8\xff"):
        content_type, size = "image/jpeg", _jpeg(head)
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        content_type, size = "image/webp", _webp(head)
    if size is None or 0 in size:
        return None
    return Picture(content_type, *size)


def _jpeg(head: bytes) -> tuple[int, int] | None:
    """From the start of the frame, behind the segments before it (ITU-T T.81, B.1.1)."""
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF:
        marker = head[place + 1]
        if marker == 0xFF:  # a filling byte
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            return _big(head[place + 7 : place + 9]), _big(head[place + 5 : place + 7])
        else:
            place += 2 + max(2, _big(head[place + 2 : place + 4]))
    return None


def _webp(head: bytes) -> tuple[int, int] | None:
    """From the first chunk (RFC 9649): extended, without loss, or with loss."""
    match head[12:16]:
        case b"VP8X" if len(head) >= 30:
            return _little(head[24:27]) + 1, _little(head[27:30]) + 1
        case b"VP8L" if len(head) >= 25 and head[20] == 0x2F:
            bits = _little(head[21:25])
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 " if head[23:26] == b"\x9d\x01\x2a" and len(head) >= 30:
            return _little(head[26:28]) & 0x3FFF, _little(head[28:30]) & 0x3FFF
    return None


def _big(part: bytes) -> int:
    return int.from_bytes(part, "big")


def _little(part: bytes) -> int:
    return int.from_bytes(part, "little")
