"""Sending files of the store: one function for every download, and our streaming backend for django-sendfile2.

With nginx in front, ``SENDFILE_BACKEND = "django_sendfile.backends.nginx"`` lets it send the file; ``send`` decides
the same, and nginx must add ``nosniff`` itself, as it drops Django's headers.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.cache import get_conditional_response
from django.utils.http import content_disposition_header, http_date, parse_http_date_safe
from django.utils.translation import gettext

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024
# The only types that a browser may show; in none of them anything can run.
SHOWN_INLINE = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,18})[ \t]*-[ \t]*(\d{0,18})[ \t]*\Z", re.ASCII | re.IGNORECASE)
# Control characters, separators, and the marks that make a name look as if it ended otherwise
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069/\\]")


class FileGone(Http404):
    """The row of a file is there, and the file is not (or is something else than a plain file)."""


def send(request: HttpRequest, path: Path, *, name: str, shown_as: str = "") -> HttpResponseBase:
    """The file at ``path`` in the store as a download called ``name``. Permissions are the caller's business.

    ``shown_as``: its type, if the browser shall show it inside a page; the caller has looked at its first bytes.
    Raises FileGone when there is no regular file, ValueError for a type that is not shown.
    """
    if shown_as and shown_as not in SHOWN_INLINE:
        raise ValueError(f"{shown_as} is never shown by the browser")
    # The backend itself, and not sendfile2's function around it: that looks at the path three times more, and writes
    # headers that are wrong for a part of a file (its length) or for a .gz (browsers would unpack it).
    backend = import_module(settings.SENDFILE_BACKEND).sendfile
    try:
        if backend is not sendfile:  # ours opens it anyway
            _opened(path).close()
        response: HttpResponseBase = backend(request, path)
    except FileNotFoundError as error:
        raise FileGone(gettext("The file is not in the store any more.")) from error
    response.headers["Content-Type"] = shown_as or "application/octet-stream"
    if isinstance(response, FileResponse):
        response.headers["Content-Length"] = str(response.length)
    disposition = content_disposition_header(not shown_as, _safe_name(name)) or "attachment"
    response.headers["Content-Disposition"] = disposition
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.headers["Cache-Control"] = "private, no-store"
    return response


def _safe_name(name: str) -> str:
    name = name.encode("utf-8", "replace").decode()
    return _NOT_IN_NAMES.sub("_", name).strip(" .") or "file"


def _opened(path: Path) -> BinaryIO:
    """The file, open; whatever keeps it from being sent is a FileNotFoundError, as sendfile2 wants it of a backend."""
    try:
        return open_regular(path)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            logger.warning("%s is not sent: %s", path, error)
        raise FileNotFoundError(str(path)) from error


def open_regular(path: Path) -> BinaryIO:
    """Open a file of the store for reading, without following a symbolic link at or below the store's folder.

    Raises OSError when the file is missing, is no regular file, or has a second name somewhere (a hard link).
    """
    top = Path(settings.SENDFILE_ROOT)
    try:
        parts = path.relative_to(top).parts
    except ValueError as error:
        raise PermissionError(f"{path} is outside the store") from error
    if not parts or ".." in parts:
        raise PermissionError(f"{path} is no file of the store")
    folder = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Non-blocking: opening a FIFO would wait for its writer.
        descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise PermissionError(f"{path} is not a regular file with one name")
        return os.fdopen(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


class FileResponse(StreamingHttpResponse):
    """A file or a part of it, streamed; ``length`` is what Content-Length has to say."""

    def __init__(self, chunks: Chunks, *, length: int, status: int = 200) -> None:
        super().__init__(chunks, status=status)
        self.length = length


class Chunks:
    """Exactly ``length`` bytes of an open file (fewer if it is cut meanwhile), a chunk at a time."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file = file
        self._left = length

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = self._file.read(min(CHUNK_BYTES, self._left)) if self._left else b""
        if not chunk:
            self.close()
            raise StopIteration
        self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        self._file.close()
        self._left = 0


def sendfile(request: HttpRequest, filename: Path, **_kwargs: Any) -> HttpResponseBase:
    """django-sendfile2's backend: GET and HEAD, one range, conditional requests, and constant memory."""
    file = _opened(Path(filename))
    try:
        response = _answer(request, file)
    except BaseException:
        file.close()
        raise
    if not isinstance(response, FileResponse) or request.method == "HEAD":
        file.close()
    return response


def _answer(request: HttpRequest, file: BinaryIO) -> HttpResponseBase:
    found = os.fstat(file.fileno())
    size, modified = found.st_size, int(found.st_mtime)
    etag = f'"{found.st_ino:x}-{found.st_mtime_ns:x}-{size:x}"'
    response: HttpResponseBase | None = get_conditional_response(request, etag=etag, last_modified=modified)
    if response is None:
        part = _asked_part(request, size, etag=etag, modified=modified)
        response = _whole_or_part(request, file, part, size)
    response.headers["ETag"] = etag
    response.headers["Last-Modified"] = http_date(datetime.fromtimestamp(modified, UTC).timestamp())
    response.headers["Accept-Ranges"] = "bytes"
    return response


def _whole_or_part(request: HttpRequest, file: BinaryIO, part: range | None, size: int) -> HttpResponseBase:
    if part is not None and not part:
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    wanted = range(size) if part is None else part
    file.seek(wanted.start)
    chunks = Chunks(file, 0 if request.method == "HEAD" else len(wanted))
    response = FileResponse(chunks, length=len(wanted), status=200 if part is None else 206)
    if part is not None:
        response.headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    return response


def _asked_part(request: HttpRequest, size: int, *, etag: str, modified: int) -> range | None:
    """The bytes that the Range header asks for: None for the whole file, an empty range for what is not there.

    RFC 9110, 14.2: only GET; what is not understood (other units, several ranges) is ignored.
    """
    header = request.headers.get("Range", "")
    match = _RANGE.match(header)
    if request.method != "GET" or match is None or not _if_range_holds(request, etag=etag, modified=modified):
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        return range(max(0, size - int(last)), size) if int(last) else range(0)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)


def _if_range_holds(request: HttpRequest, *, etag: str, modified: int) -> bool:
    condition = request.headers.get("If-Range")
    if condition is None:
        return True
    if condition.startswith(('"', "W/")):
        return condition == etag
    return parse_http_date_safe(condition) == modified
