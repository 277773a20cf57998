"""The common part of all builders: where data lie, whether they are whole, what they are."""

import errno
import os
import pathlib

import tensorflow_datasets as tfds

from tfds_builders import names, spill
from tfds_builders.errors import DataError, explained, home, quoted, short

# errors of the system that no new build puts right
NOT_OURS = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)
# in which array_record speaks of a disk
OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
UNBUILT = 'not built yet'


class Builder(tfds.core.GeneratorBasedBuilder):
    """A TFDS builder that says in one DataError what is wrong with its folders and files.

    data_dir: may begin with ~
    file_format: 'array_record' by default
    """

    HOMEPAGE = None
    # the user's files, where it reads some
    manual_dir = None

    def __init__(self, *, data_dir=None, file_format=None, **kwargs):
        spill.without_tensorflow()
        data_dir = str(home(data_dir)) if data_dir else None
        try:
            # TFDS's own default needs TensorFlow
            file_format = file_format or 'array_record'
            super().__init__(data_dir=data_dir, file_format=file_format, **kwargs)
            fault = self._fault()
        except DataError:
            raise
        except Exception as error:
            # TFDS and its readers of JSON raise many kinds for files that are damaged
            folder = vars(self).get('_data_dir')
            there = folder is not None and os.path.lexists(folder)
            if not there:
                refused = _refused(error)
                if refused is None:
                    raise
                place = refused.filename or folder or data_dir
                raise DataError(explained(refused, place)) from error
            if isinstance(error, ValueError) and 'File format' in str(error):
                raise DataError(
                    f'{self.name} was built there as another file format ({error}). Give another '
                    f'--data_dir for a copy as {file_format}.'
                ) from None
            raise unreadable(folder, error, self.manual_dir) from error
        if fault:
            raise damaged(self._data_dir, fault, self.manual_dir)

    def _fault(self):
        """Return what its folder lacks, or None where it is whole or not there."""
        folder = pathlib.Path(self._data_dir)
        try:
            str(folder).encode()
        except UnicodeEncodeError:
            # array_record reads no other names
            raise DataError(
                f'{str(folder)!a} is not the name of a folder in UTF-8. Give another --data_dir '
                '(in training --config.data.dir).'
            ) from None
        if not os.path.lexists(folder):
            return None
        for name in ('dataset_info.json', 'features.json', 'metadata.json'):
            if not (folder / name).is_file():
                return f'{name} is missing'
        known = tfds.features.FeatureConnector.from_config(folder)
        if set(known) != set(self.info.features):
            return 'features.json is that of other data'
        metadata = dict(self.info.metadata.items())
        if metadata.get('split_rule', UNBUILT) == UNBUILT:
            return 'metadata.json is incomplete'
        paths = [path for split in self.info.splits.values() for path in split.filepaths]
        lost = [os.path.basename(path) for path in paths if not os.path.isfile(path)]
        return f'{lost[0]} is missing' if lost else None if paths else 'it has no splits'

    def require_records(self):
        """Read the first and the last record of each split of a data set that is there.

        Pictures are not decoded. Copies as tfrecord, which need TensorFlow, are not read. Raises
        DataError.
        """
        if self.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
            return
        pictures = [
            n for n, one in self.info.features.items() if isinstance(one, tfds.features.Image)
        ]
        decoders = {name: tfds.decode.SkipDecoding() for name in pictures}
        for split in self.info.splits:
            try:
                source = self.as_data_source(split, decoders=decoders)
                for number in {0, len(source) - 1}:
                    source[number]
            except Exception as error:
                # readers of damaged files raise many kinds
                raise unreadable(self.data_dir, error, self.manual_dir) from error

    def described(self, features, metadata, description=None):
        """Return the DatasetInfo: with the citation of CITATIONS.bib and the homepage."""
        return tfds.core.DatasetInfo(
            builder=self,
            description=description or self.__doc__,
            citation=self.get_metadata().citation,
            # without one, TFDS names a page of its catalogue that does not exist
            homepage=self.HOMEPAGE or f'tfds_builders/{self.name}/README.md',
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(metadata),
        )

    def download_and_prepare(self, **kwargs):
        """Build the data set where it is not there yet, as TFDS does. Raises DataError."""
        try:
            super().download_and_prepare(**kwargs)
        except (OSError, RuntimeError) as error:
            text = str(error)
            number = next((n for n in OF_DISKS if os.strerror(n) in text), None)
            if isinstance(error, OSError) and error.errno:
                what = explained(error)
            elif number:
                what = explained(OSError(number, ''), self._data_dir_root)
            elif isinstance(error, OSError):
                what = f'{short(text)}.'
            else:
                raise
            raise DataError(f'{self.info.full_name} cannot be built: {what}') from error


def _refused(error):
    """Return the error of the system behind an exception, or None."""
    while error and not (isinstance(error, OSError) and error.errno):
        error = error.__cause__
    return error


def unreadable(folder, error, manual_dir=None) -> DataError:
    """Return the DataError for an exception that was raised by reading built data."""
    refused = _refused(error)
    numbers = [refused.errno] if refused else [n for n in NOT_OURS if os.strerror(n) in str(error)]
    if numbers and numbers[0] in NOT_OURS:
        return DataError(explained(OSError(numbers[0], ''), folder))
    if isinstance(error, MemoryError):
        return DataError(f'{quoted(folder)}: no memory is left to read it. Close other programs.')
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return damaged(folder, short(lines[0]), manual_dir)


def damaged(folder, why, manual_dir=None) -> DataError:
    """Return the DataError for the folder of a built data set that cannot be read.

    why: in a few words
    manual_dir: the folder of the user's files, where it is known
    """
    folder = pathlib.Path(folder)
    at = max((i for i, part in enumerate(folder.parts) if part in names()), default=None)
    remedy = 'build it again.'
    if at is not None:
        name = '/'.join(folder.parts[at:-1])
        own = f' --manual_dir={quoted(manual_dir)}' if manual_dir else ''
        if folder.parts[at] == 'caption_folder':
            name, own = 'caption_folder', own or ' --manual_dir=FOLDER'
        root = quoted(pathlib.Path(*folder.parts[:at]))
        remedy = f'build it again: python -m tfds_builders.build {name} --data_dir={root}{own}'
    return DataError(
        f'The built data set in {quoted(folder)} is damaged: {str(why).rstrip(".")}. Delete that '
        f'folder (rm -r {quoted(folder)}), then {remedy}'
    )
