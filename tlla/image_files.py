"""Which files are images, by suffix, and one way to walk folders that accounts for every entry."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from .errors import InputError

# Suffixes of images, whether or not this Pillow decodes them: those that it cannot read are reported, not skipped.
IMAGE_SUFFIXES = frozenset(
    """
    .apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr .gif .icb .icns .ico .im
    .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .msp .pbm .pcd .pcx .pfm .pgm .png .pnm .ppm .psd .pxr
    .qoi .ras .rgb .rgba .sgi .tga .tif .tiff .vda .vst .webp .xbm .xpm
    .bpg .dcm .emf .eps .exr .hdp .hdr .heic .heics .heif .heifs .hif .jls .jxl .jxr .svg .svgz .wdp .wmf .xcf
    .3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2 .srf
    .srw .x3f
    """.split()
)

IMAGE = "image"
FOLDER = "folder"
EMPTY_FOLDER = "empty folder"
HIDDEN = "hidden"
NO_FILE = "pipe, socket or device"
LOOSE_LINK = "link to nothing"
SEEN_FOLDER = "link to a folder that is listed elsewhere"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _kind_of(entry: os.DirEntry[str]) -> str:
    """Kind of a folder's entry: one of the constants above, or its suffix (``.txt``, ``no suffix``).

    A broken link with an image suffix counts as an image, one that is missing.
    """
    if entry.name.startswith("."):
        return HIDDEN
    try:  # is_dir and is_file use the listing itself: no further look-up for each file
        if entry.is_dir():
            return FOLDER
        regular = entry.is_file()
    except OSError:  # a link to itself
        regular = False
    leads_nowhere = not regular and not os.path.exists(entry.path)
    if not regular and not leads_nowhere:
        return NO_FILE
    if _suffix(entry.name) in IMAGE_SUFFIXES:
        return IMAGE
    return LOOSE_LINK if leads_nowhere else _suffix(entry.name) or "no suffix"


def scan(folder: str | os.PathLike[str], advice: str = "") -> dict[str, list[str]]:
    """Names in a folder by `_kind_of`, sorted.

    Args:
        folder: Path of the folder.
        advice: What to do if it cannot be listed, for the message.

    Raises:
        InputError: the folder cannot be listed.

    >>> scan(".")
    {'image': ['fruit.png']}
    """
    found: dict[str, list[str]] = defaultdict(list)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found[_kind_of(entry)].append(entry.name)
    except OSError as error:
        raise InputError(
            f"{os.fspath(folder)} cannot be listed ({error.strerror})" + (f"; {advice}" if advice else "")
        ) from error
    return {kind: sorted(names) for kind, names in found.items()}


def walk(folder: str | os.PathLike[str], skip: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """All entries below a folder as (path relative to it, kind); links are followed, but no folder is visited twice.

    Only empty folders are listed themselves; the contents of hidden ones are left out.

    Args:
        folder: Folder to start from.
        skip: Names of folders to skip.

    Raises:
        InputError: a folder cannot be listed.

    >>> Path("photos/old").mkdir(parents=True)
    >>> list(walk("."))
    [('fruit.png', 'image'), ('photos/old', 'empty folder')]
    """
    seen = {os.path.realpath(folder)}
    waiting = [""]
    while waiting:
        below = waiting.pop()
        found = scan(os.path.join(folder, below))
        if not found:
            yield below or ".", EMPTY_FOLDER
        paths = {kind: [f"{below}/{name}" if below else name for name in names] for kind, names in found.items()}
        folders = sorted(paths.pop(FOLDER, []), key=lambda path: os.path.islink(os.path.join(folder, path)))
        for kind in paths:
            yield from ((path, kind) for path in paths[kind])
        for path in folders:  # links last, so that a folder is listed under its own name
            if os.path.basename(path) in skip:
                continue
            if (place := os.path.realpath(os.path.join(folder, path))) in seen:
                yield path, SEEN_FOLDER
            else:
                seen.add(place)
                waiting.append(path)


def describe_kinds(found: Mapping[str, Sequence[str]], examples: int = 1) -> str:
    """Number of entries of each kind, with examples.

    >>> describe_kinds({".txt": ["a.txt", "b.txt"], "folder": ["raw"]})
    '2 .txt (a.txt ...), 1 folder (raw)'
    """
    texts = []
    for kind, paths in sorted(found.items()):
        shown = ", ".join(map(one_line, paths[:examples])) + (" ..." if len(paths) > examples else "")
        texts.append(f"{len(paths):,} {kind} ({shown})")
    return ", ".join(texts)


def one_line(path: str | os.PathLike[str]) -> str:
    r"""A path on one line: a file name may hold line breaks and bytes that are not text.

    >>> print(one_line("two" + chr(10) + "lines.png"))
    two\nlines.png
    """
    text = os.fspath(path).encode("utf-8", "backslashreplace").decode()
    return text.replace("\n", "\\n").replace("\r", "\\r")
