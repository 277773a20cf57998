"""Files of a data set: archives read where they lie, and downloads.

Archives are streamed, nothing is extracted to disk; what has a direct link can be fetched.
"""

import codecs
import gzip
import hashlib
import http.client
import pathlib
import re
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib

import cv2
import numpy as np
from tqdm import tqdm

from tfds_builders.errors import DataError

CHUNK = 1 << 20
GZIP = b'\x1f\x8b'


def members(path, pattern):
    """Yield (match, bytes) of each file in an archive or folder that fits a pattern.

    path: a .zip, .tar or .tgz, or a folder
    pattern: a regular expression for the end of a file's path

    Names only select, they are never opened on this machine: a path that leads outside of an
    archive does no harm. Raises DataError that names an archive which is broken or ends early.
    """
    pattern, path = re.compile(rf'(?:^|.*/)(?:{pattern})'), pathlib.Path(path)
    contents = _folder if path.is_dir() else _zip if path.suffix == '.zip' else _tar
    try:
        for name, read in contents(path):
            match = pattern.fullmatch(name)
            if match:
                yield match, read()
    except (EOFError, OSError, zlib.error, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(f'{path} is broken or ends early ({error}). Fetch it again.') from None


def _folder(path):
    for file in sorted(path.rglob('*')):
        if file.is_file():
            yield file.relative_to(path).as_posix(), file.read_bytes


def _zip(path):
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield info.filename, lambda info=info: archive.read(info)


def _tar(path):
    with open(path, 'rb') as raw, gzip.open(raw) if raw.peek(2)[:2] == GZIP else raw as file:
        with tarfile.open(fileobj=file, mode='r|') as archive:
            for info in archive:
                if info.isfile():
                    yield info.name, lambda info=info: archive.extractfile(info).read()
        # tarfile takes some broken archives for shorter ones, gzip does not
        while file.read(CHUNK):
            pass


def first_of(folder, *names):
    """Return the first of these files or folders that exists in the folder, or None."""
    return next((path for name in names if (path := pathlib.Path(folder) / name).exists()), None)


def decode(data: bytes, flags=cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION):
    """Return pixels (H, W, 3) uint8 BGR as they are stored, or None.

    None for bytes that are not a whole picture; one that ends early is not. flags: OpenCV's.
    """
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        # a picture of more pixels than OpenCV takes
        return None


def text_of(data: bytes) -> str:
    """Return the text of bytes in UTF-8, or in UTF-16 where its byte order mark says so.

    Lines that are not UTF-8 are taken for Windows' Latin-1.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode('utf-16', 'replace')
    return ''.join(map(_line, data.removeprefix(codecs.BOM_UTF8).splitlines(keepends=True)))


def _line(data):
    try:
        return data.decode('utf-8')
    except UnicodeDecodeError:
        return data.decode('cp1252', 'replace')


def storable(text: str) -> str:
    """Return the text with "?" for half a surrogate pair, which UTF-8 cannot hold.

    JSON can.
    """
    return text.encode('utf-8', 'replace').decode()


def clean(text: str) -> list[str]:
    """Return the captions of a text, one a line.

    U+FFFD becomes a blank, blanks are joined, lines without a word are left out.
    """
    lines = (
        ' '.join(line.replace('\ufffd', ' ').split())
        for line in storable(text).replace('\r', '\n').split('\n')
    )
    return [line for line in lines if re.search(r'\w', line)]


def lines_of(data: bytes) -> list[str]:
    """Return the captions of a text file, one a line; see `text_of`, `clean`."""
    return clean(text_of(data))


def sha256(path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def come(url, folder, size) -> int:
    """Return how many bytes of a file `fetch` has already brought into the folder.

    size: of the whole file
    """
    path = pathlib.Path(folder) / url.rpartition('/')[2]
    part = path.with_name(path.name + '.part')
    return (
        size
        if path.exists() and path.stat().st_size == size
        else min(size, part.stat().st_size)
        if part.exists()
        else 0
    )


def fetch(url, folder, *, size=0, checksum='', retries=3) -> pathlib.Path:
    """Download a file into the folder, with a progress bar, and return its path.

    url: its last part is the file's name
    size: in bytes, verified where it is known
    checksum: SHA-256, verified where it is known
    retries: attempts

    What is there already and right is only returned. A download that broke off continues where it
    stopped: what has come so far lies in <name>.part. Raises DataError.
    """
    folder = pathlib.Path(folder)
    path = folder / url.rpartition('/')[2]
    if path.exists() and (not size or path.stat().st_size == size):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + '.part')
    for attempt in range(retries):
        try:
            _download(url, part, size)
            break
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if (
                attempt + 1 == retries
                or isinstance(error, urllib.error.HTTPError)
                and error.code in (403, 404)
            ):
                raise DataError(
                    f'Cannot fetch {url} ({error}). Try again: it goes on where it stopped. Or '
                    'fetch it by hand and put it '
                    'into the manual folder.'
                ) from None
    if size and part.stat().st_size != size or checksum and sha256(part) != checksum:
        part.unlink()
        raise DataError(
            f'{url} is not the file that was expected (its size or SHA-256 differs); what came was '
            'removed. Try again, or fetch it elsewhere.'
        )
    return part.rename(path)


def _download(url, part, size):
    have = part.stat().st_size if part.exists() else 0
    if size and have >= size:
        return
    request = urllib.request.Request(url, headers={'Range': f'bytes={have}-'} if have else {})
    with urllib.request.urlopen(request, timeout=60) as reply:
        # the server cannot go on in the middle
        if have and reply.status != 206:
            have = 0
        total = have + int(reply.headers.get('Content-Length') or 0)
        with (
            open(part, 'ab' if have else 'wb') as file,
            tqdm(
                total=total or None,
                initial=have,
                unit='B',
                unit_scale=True,
                desc=part.stem,
                disable=None,
            ) as bar,
        ):
            while chunk := reply.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if total and part.stat().st_size < total:
            raise http.client.IncompleteRead(b'', total - part.stat().st_size)
