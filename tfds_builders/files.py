"""Files of a data set: archives read where they lie, and downloads.

Archives are streamed, nothing is extracted to disk; what has a direct link can be fetched.
"""

import codecs
import collections
import gzip
import hashlib
import http.client
import math
import os
import pathlib
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile

import cv2
import numpy as np
from tqdm import tqdm

from tfds_builders.errors import DataError, explained, home, no_file, quoted, short

CHUNK = 1 << 20
GZIP = b'\x1f\x8b'
# bytes of a picture or a text in an archive
LARGEST = 1 << 28
# bytes of weights, or of a pickle of vectors
HUGE = 1 << 32
# an archive unpacks to so many times its size at most, or to so many bytes
RATIO, SURELY = 200, 1 << 30
# of zip archives: a flag of a file, and the methods that Python reads
ENCRYPTED = 1
# of tar archives: files that are long names, or comments of others
HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
UNPACK = 'Unpack the archive with another program, and give the folder.'
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# OpenCV's flags for a picture as it lies in the file
STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
# folders of Windows, macOS, network disks; others' names begin with a dot
HOUSEKEEPING = (
    '@eaDir',
    '__MACOSX',
    '#recycle',
    '$RECYCLE.BIN',
    'System Volume Information',
    'lost+found',
)


def members(path, pattern, limit=LARGEST):
    """Yield (match, bytes) of each file in an archive or folder that fits a pattern.

    path: a .zip, .tar or .tgz, or a folder
    pattern: a regular expression for the end of a file's path
    limit: of a file in bytes; what is larger is never read

    Hidden files and folders, and those of file managers, are left out, as by `walk`. Names only
    select, they are never opened on this machine: a path that leads outside of an archive does no
    harm. Raises DataError that names the archive, and the file in it, where one
    cannot be read or ends early.
    """
    pattern, path = re.compile(rf'(?:^|.*/)(?:{pattern})'), pathlib.Path(path)
    name = None
    try:
        if not path.is_dir():
            require_file(path)
        contents = _folder if path.is_dir() else _zip if path.suffix == '.zip' else _tar
        for name, size, fault, read in contents(path):
            match = pattern.fullmatch(name)
            if not match or any(map(_is_hidden, name.split('/'))):
                continue
            if size > limit and not fault:
                most = f'at most {limit / 1e6:,.0f} are read'
                fault = f'takes {size / 1e6:,.0f} MB, and {most}. Fetch it again.'
            if fault:
                raise DataError(f'{quoted(path)}: {short(name)} {fault}')
            yield match, read()
    except DataError:
        raise
    except MemoryError:
        raise DataError(
            f'{quoted(path)}: {short(name)} does not fit into memory. Close other programs, or '
            'take a smaller part of the data.'
        ) from None
    except Exception as error:
        # of a kind that says little: zipfile, tarfile, gzip and zlib have dozens
        if isinstance(error, OSError) and error.errno:
            raise DataError(explained(error, error.filename or path)) from None
        where = f'at or behind {short(name)}: ' if name else ''
        raise DataError(
            f'{quoted(path)} is broken or ends early ({where}{short(error) or type(error).__name__}'
            '). Fetch it again.'
        ) from None


def _folder(path):
    """Yield (name, size, what rules it out or '', function that reads it) of each file."""
    for file in walk(path, ('',))[0]:
        status = file.stat()
        fault = _hollow(status.st_size, 512 * status.st_blocks)
        yield file.relative_to(path).as_posix(), status.st_size, fault, file.read_bytes


def _hollow(size, stored):
    """Return the fault of a large file that next to nothing is stored of, or ''."""
    if size > max(LARGEST, RATIO * stored):
        return (
            f'takes {size / 1e6:,.0f} MB, of which {stored / 1e6:,.1f} are stored. Fetch it again.'
        )
    return ''


def _zip(path):
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            fault = _hollow(info.file_size, info.compress_size)
            if info.flag_bits & ENCRYPTED:
                fault = f'is encrypted. {UNPACK}'
            elif info.compress_type not in METHODS:
                method = f'a method that is not read here ({info.compress_type})'
                fault = f'is compressed by {method}. {UNPACK}'
            yield info.filename, info.file_size, fault, lambda info=info: archive.read(info)


def _tar(path):
    most = max(SURELY, RATIO * path.stat().st_size)
    with open(path, 'rb') as raw, gzip.open(raw) if raw.peek(2)[:2] == GZIP else raw as file:
        with tarfile.open(fileobj=file, mode='r|', tarinfo=_Header) as archive:
            while (info := archive.next()) is not None:
                if info.offset_data + info.size > most and not info.issparse():
                    raise DataError(
                        f'{quoted(path)}: {short(info.name)} takes {info.size / 1e6:,.0f} MB, far '
                        'more than such an archive holds. Fetch the archive again.'
                    )
                # it would remember all of them
                archive.members.clear()
                if info.isfile():
                    fault = f'has holes (a sparse file). {UNPACK}' if info.issparse() else ''
                    yield (
                        info.name,
                        info.size,
                        fault,
                        lambda info=info: archive.extractfile(info).read(),
                    )
        # tarfile takes some broken archives for shorter ones, gzip does not
        left = most
        while left > 0 and (data := file.read(CHUNK)):
            left -= len(data)


class _Header(tarfile.TarInfo):
    """The head of a file in a tar archive, whose long names and comments have a limit."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        one = super().frombuf(buf, encoding, errors)
        if one.type in HEADERS and one.size > CHUNK:
            raise tarfile.ReadError(f'a header of {one.size / 1e6:,.0f} MB')
        return one


def require_space(folder, size, purpose):
    """Check that the disk of a folder has `size` bytes free, and some to spare.

    Raises DataError.
    """
    folder = home(folder).absolute()
    there = next(p for p in (folder, *folder.parents) if os.path.exists(p))
    free = shutil.disk_usage(there).free
    if free < 1.05 * size:
        raise DataError(
            f'{quoted(folder)} needs {size / 1e9:.2f} GB {purpose}, and its disk has '
            f'{free / 1e9:.2f} GB free. Make room, or give another '
            '--data_dir (in training --config.data.dir).'
        )


def first_of(folder, *names):
    """Return the first of these files or folders that exists in the folder, or None."""
    return next((path for name in names if (path := pathlib.Path(folder) / name).exists()), None)


def decode(data: bytes, flags=STORED):
    """Return pixels (H, W, 3) uint8 BGR as they are stored, or None.

    None for bytes that are not a whole picture; one that ends early is not. flags: OpenCV's.
    """
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        # a picture of more pixels than OpenCV takes
        return None


def walk(folder, endings) -> tuple[list[pathlib.Path], dict[str, int]]:
    """List the files below a folder whose names end so, sorted, and count what was skipped.

    endings: lower-case; capitals in names do not matter

    Skipped are hidden names, folders of file managers, built data sets, and workdirs of runs
    (each folder counts once), further broken links, and pipes and devices. Links to files are
    followed, links to folders are not.
    """
    found, skipped = [], collections.Counter()
    for place, folders, names in os.walk(
        folder, onerror=lambda error: skipped.update(['folders that cannot be read'])
    ):
        place = pathlib.Path(place)
        for name in list(folders):
            what = _not_entered(place / name)
            if what:
                folders.remove(name)
                skipped[what] += 1
        for name in names:
            if not name.lower().endswith(tuple(endings)):
                continue
            if _is_hidden(name):
                skipped['hidden files'] += 1
            # unlike pathlib's, these take what may not be read for missing
            elif os.path.isfile(place / name):
                found.append(place / name)
            else:
                there = os.path.exists(place / name)
                skipped['pipes and devices' if there else 'broken links'] += 1
    return sorted(found), dict(sorted(skipped.items()))


def _is_hidden(name):
    """Whether a file or folder of this name is none of the user's; '.' and '..' lead elsewhere."""
    return name in HOUSEKEEPING or name.startswith('.') and name not in ('.', '..')


def _not_entered(folder):
    """Return what a folder is that `walk` leaves out, or None."""
    name = folder.name
    if _is_hidden(name):
        return 'hidden folders'
    # TFDS builds in a folder that it renames in the end
    if os.path.exists(folder / 'dataset_info.json') or name.startswith('incomplete.'):
        return 'built data sets'
    if os.path.exists(folder / 'config.json') and any(folder.glob('*/meta.json')):
        return 'workdirs of runs'
    return 'linked folders' if folder.is_symlink() else None


def require_file(path, limit=math.inf) -> str:
    """Return the path of a file, its ~ expanded, without opening it.

    limit: of its size in bytes

    Raises DataError that names what is missing, what is not a file, and a larger file.
    """
    path = str(home(path))
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(explained(error, path)) from None
    other = no_file(status)
    if other:
        raise DataError(f'{quoted(path)} is {other}. Give a file.')
    if status.st_size > limit:
        raise DataError(_larger(path, limit))
    return path


def _larger(path, limit):
    return f'{quoted(path)} is larger than {limit / 1e6:,.0f} MB. Give a smaller file.'


def read_bytes(path, limit=LARGEST) -> bytes:
    """Read a whole file. Raises DataError for what `require_file` refuses, and for other errors.

    limit: in bytes
    """
    path = require_file(path, limit)
    try:
        with open(path, 'rb') as file:
            # files of /proc have the size 0
            data = file.read((os.fstat(file.fileno()).st_size or min(limit, LARGEST)) + 1)
    except OSError as error:
        raise DataError(explained(error, path)) from None
    except MemoryError:
        raise DataError(f'{quoted(path)} does not fit into memory. Close other programs.') from None
    if len(data) > limit:
        raise DataError(_larger(path, limit))
    return data


def read_text(path, limit=64 << 20, guessed=None) -> str:
    """Read a text file, in the encodings of `text_of`; refuses what `read_bytes` does.

    guessed: a list that gets the path where the encoding is taken for Latin-1
    """
    data = read_bytes(path, limit)
    if guessed is not None and not data.startswith(UTF16):
        try:
            data.decode('utf-8')
        except UnicodeDecodeError:
            guessed.append(path)
    return text_of(data)


def text_of(data: bytes) -> str:
    """Return the text of bytes in UTF-8, or in UTF-16 where its byte order mark says so.

    Lines that are not UTF-8 are taken for Windows' Latin-1. Byte order marks are left out, also
    within the text, where files were joined.
    """
    if data.startswith(UTF16):
        text = data.decode('utf-16', 'replace')
    else:
        try:
            text = data.decode('utf-8')
        except UnicodeDecodeError:
            text = ''.join(map(_line, data.splitlines(keepends=True)))
    return text.replace('\ufeff', '')


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
    """Compute the SHA-256 of a file, in hexadecimal. Raises DataError as `read_bytes`."""
    path = require_file(path)
    try:
        with open(path, 'rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
        raise DataError(explained(error, path)) from None


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
