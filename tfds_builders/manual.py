"""The common part of data sets that are read from files of the user's."""

import pathlib

from absl import logging

from tfds_builders import files
from tfds_builders.base import Builder
from tfds_builders.errors import DataError, explained, home, quoted

# of a list of problems
SHOWN = 5


class ManualBuilder(Builder):
    """A builder whose files, which the user fetched, lie in `manual_dir`.

    manual_dir: <data_dir>/downloads/manual by default
    on_error: 'refuse' raises DataError for records that cannot be used; 'skip' leaves them out and
        lists them in the log and in the metadata ('skipped': {name: reason})
    """

    def __init__(self, *, manual_dir=None, on_error='refuse', **kwargs):
        if on_error not in ('refuse', 'skip'):
            raise DataError(f'on_error is {on_error!r}; use "refuse" or "skip".')
        self.manual_dir = home(manual_dir) if manual_dir else None
        self.on_error = on_error
        super().__init__(**kwargs)
        self.downloads = pathlib.Path(self._data_dir_root) / 'downloads'

    def download_and_prepare(self, *, download_dir=None, download_config=None, **kwargs):
        """Build the data set where it is not there yet, as TFDS does.

        download_config: its manual_dir is used where the builder was given none

        Raises DataError.
        """
        if download_dir:
            self.downloads = home(download_dir)
        if download_config and download_config.manual_dir:
            other = home(download_config.manual_dir)
            if self.manual_dir and other.absolute() != self.manual_dir.absolute():
                raise DataError(
                    f'manual_dir is {quoted(self.manual_dir)} for the builder and {quoted(other)} '
                    'in DownloadConfig. Give one of them.'
                )
            self.manual_dir = other
        super().download_and_prepare(
            download_dir=download_dir, download_config=download_config, **kwargs
        )

    def manual_folder(self, empty=False):
        """Return the folder of the user's files.

        empty: whether a folder that the user names may hold nothing
        """
        folder = self.manual_dir or self.downloads / 'manual'
        try:
            if any(folder.iterdir()) or empty and self.manual_dir:
                return folder
            what = 'is empty'
        except FileNotFoundError:
            what = 'does not exist'
        except NotADirectoryError:
            what = 'is a file, or a part of its path is: give a folder'
        except OSError as error:
            raise DataError(explained(error, folder)) from None
        raise DataError(
            f'Manual folder {quoted(folder)} {what}.\n{self.MANUAL_DOWNLOAD_INSTRUCTIONS}'
        )

    def given(self, folder, *names, what='', optional=False):
        """Return the first of these files or folders in the manual folder.

        Where there is none, raises DataError with the instructions, or returns None where it is
        optional.
        """
        found = files.first_of(folder, *names)
        if found is None and not optional:
            raise DataError(
                f'{what or names[0]} is not in {quoted(folder)} (looked for '
                f'{", ".join(names)}).\n{self.MANUAL_DOWNLOAD_INSTRUCTIONS}'
            )
        return found

    def fetched(self, folder, url):
        """Return the file of an address, from the manual folder or else downloaded.

        It goes to <data_dir>/downloads, or where TFDS was told to download to, and is checked
        against checksums.tsv.
        """
        own = files.first_of(folder, url.rpartition('/')[2])
        if own:
            return own
        known = self.url_infos.get(url)
        left = known.size - files.come(url, self.downloads, known.size) if known else 0
        if left:
            files.require_space(self.downloads, left, f'for {url}')
        return files.fetch(
            url,
            self.downloads,
            size=known.size if known else 0,
            checksum=known.checksum if known else '',
        )

    def report(self, problems, *sources):
        """Report records that cannot be used, {record: why}, and keep them in the metadata.

        sources: the files that they come from

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
            where = ' and '.join(map(quoted, sources))
            raise DataError(
                f'{len(problems)} records of {where} cannot be used as they are: {listed}. '
                'Repair the files, or leave these '
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
            sum(f.stat().st_size for f in files.walk(p, ('',))[0])
            if p.is_dir()
            else p.stat().st_size
            for p in paths
            if p
        )
        files.require_space(self._data_dir_root, size, f'for {self.info.full_name}')
