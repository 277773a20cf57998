"""The common part of data sets that are read from files of the user's."""

import pathlib
import shutil

import tensorflow_datasets as tfds
from absl import logging

from tfds_builders import files, spill
from tfds_builders.errors import DataError

# of a list of problems
SHOWN = 20


class ManualBuilder(tfds.core.GeneratorBasedBuilder):
    """A builder whose files, which the user fetched, lie in `manual_dir`.

    manual_dir: <data_dir>/downloads/manual by default
    on_error: 'refuse' raises DataError for records that cannot be used; 'skip' leaves them out and
        lists them in the log and in the metadata ('skipped': {name: reason})
    """

    def __init__(self, *, manual_dir=None, on_error='refuse', **kwargs):
        if on_error not in ('refuse', 'skip'):
            raise DataError(f'on_error is {on_error!r}; use "refuse" or "skip".')
        self.manual_dir = pathlib.Path(manual_dir).expanduser() if manual_dir else None
        self.on_error = on_error
        spill.without_tensorflow()
        super().__init__(**kwargs)

    def manual_folder(self):
        """Return the folder of the user's files, which must exist and hold something."""
        folder = self.manual_dir or pathlib.Path(self._data_dir_root) / 'downloads' / 'manual'
        if not folder.is_dir() or not any(folder.iterdir()):
            what = 'is empty' if folder.is_dir() else 'does not exist'
            raise DataError(f'Manual folder {folder} {what}.\n{self.MANUAL_DOWNLOAD_INSTRUCTIONS}')
        return folder

    def given(self, folder, *names, what='', optional=False):
        """Return the first of these files or folders in the manual folder.

        Where there is none, raises DataError with the instructions, or returns None where it is
        optional.
        """
        found = files.first_of(folder, *names)
        if found is None and not optional:
            raise DataError(
                f'{what or names[0]} is not in {folder} (looked for '
                f'{", ".join(names)}).\n{self.MANUAL_DOWNLOAD_INSTRUCTIONS}'
            )
        return found

    def fetched(self, folder, url):
        """Return the file of an address, from the manual folder or else downloaded.

        It goes to <data_dir>/downloads and is checked against checksums.tsv.
        """
        own = files.first_of(folder, url.rpartition('/')[2])
        if own:
            return own
        known = self.url_infos.get(url)
        downloads = pathlib.Path(self._data_dir_root) / 'downloads'
        left = known.size - files.come(url, downloads, known.size) if known else 0
        if left:
            require_space(downloads, left, f'for {url}')
        return files.fetch(
            url,
            downloads,
            size=known.size if known else 0,
            checksum=known.checksum if known else '',
        )

    def report(self, problems, source):
        """Report records that cannot be used, {record: why}, and keep them in the metadata.

        They stand there as 'skipped'. Raises DataError that names them, or with on_error='skip'
        writes them to the log.
        """
        self.info.metadata.update(skipped=problems)
        if not problems:
            return
        listed = [f'{name}: {reason}' for name, reason in problems.items()]
        listed = '; '.join(listed[:SHOWN]) + (
            f'; and {len(listed) - SHOWN} more' if len(listed) > SHOWN else ''
        )
        if self.on_error == 'refuse':
            raise DataError(
                f'{len(problems)} records of {source} cannot be used as they are: {listed}. Repair '
                'the files, or leave these '
                "out with on_error='skip' (--on_error=skip; in training "
                '--config.data.on_error=skip).'
            )
        logging.warning('Left out %d records: %s', len(problems), listed)

    def checksums(self, *paths):
        """Put the SHA-256 of the files that were read on record; an unpacked folder has none."""
        self.info.metadata.update(
            sha256={path.name: files.sha256(path) for path in paths if path and path.is_file()}
        )

    def require_space(self, *paths):
        """Check that the disk has room for a copy of these files or folders.

        That is about what a built data set needs. Raises DataError.
        """
        size = sum(
            sum(f.stat().st_size for f in p.rglob('*') if f.is_file())
            if p.is_dir()
            else p.stat().st_size
            for p in paths
            if p
        )
        require_space(self._data_dir_root, size, f'for {self.info.full_name}')


def require_space(folder, size, purpose):
    """Check that the disk of a folder has `size` bytes free, and some to spare.

    Raises DataError.
    """
    folder = pathlib.Path(folder).expanduser().absolute()
    there = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < 1.05 * size:
        raise DataError(
            f'{folder} needs {size / 1e9:.2f} GB {purpose}, and its disk has {free / 1e9:.2f} GB '
            'free. Make room, or give another '
            '--data_dir (in training --config.data.dir).'
        )
