"""Downloads over HTTP that can be stopped at any moment and resumed at the next try."""

import http.client
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from tlla.errors import InputError

TRIES = 5
PAUSE = 2.0  # seconds before the second try, doubled for each after it
CHUNK = 1 << 20
USER_AGENT = "Mozilla/5.0 (compatible; tlla-datasets)"


class DownloadError(InputError):
    """A download failed; the message says what to do."""


def fetch_url(url: str, part: Path) -> None:
    """Downloads to `part`; resumes where it ends, and tries again after errors that may pass.

    Raises:
        DownloadError: it failed for good; what was downloaded stays for the next try.
    """
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            _request(url, part)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the part is longer than the file: it is not of this file
                part.unlink()
            elif error.code < 500 and error.code not in (408, 429):
                raise DownloadError(
                    f"{url} answered {error.code} {error.reason}: the link is dead or closed"
                ) from error
            reason: Exception = error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = error
        print(f"{part.name}: {reason}; try {attempt + 1} of {TRIES}")
    raise DownloadError(f"{url} failed {TRIES} times, at last: {reason}; try again later, it resumes where it stopped")


def _request(url: str, part: Path) -> None:
    """One request for what is missing."""
    mark = part.with_name(part.name + ".version")  # tells whether the file on the server is still the same
    offset = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if mark.is_file():
            headers["If-Range"] = mark.read_text(encoding="utf-8")
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range", "").endswith(f"/{offset}"):
            return  # it was complete
        raise
    with response:
        if response.headers.get_content_type() == "text/html":
            raise DownloadError(f"{url} answered with a web page instead of the file; open it in a browser to see why")
        offset = offset if response.status == 206 else 0
        total = offset + int(response.headers.get("Content-Length") or 0)
        _need_space(part, total - offset)
        if version := response.headers.get("ETag") or response.headers.get("Last-Modified"):
            mark.write_text(version, encoding="utf-8")
        _save(response, part, offset, total)
    mark.unlink(missing_ok=True)


def _need_space(part: Path, size: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if size > free:
        raise DownloadError(f"{size / 1e9:.2f} GB are needed in {part.parent}, which has {free / 1e9:.2f} GB free")


def _save(response: http.client.HTTPResponse, part: Path, offset: int, total: int) -> None:
    bar = tqdm(total=total or None, initial=offset, unit="B", unit_scale=True, desc=part.name.removesuffix(".part"))
    with bar, open(part, "ab" if offset else "wb") as file:
        while chunk := response.read(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    size = part.stat().st_size
    if total > offset and size < total:  # http.client does not tell when a server hangs up between chunks
        raise ConnectionError(f"the connection ended after {size:,} of {total:,} bytes")
