"""The exceptions for what a person can put right. Their message is all that the command line prints."""
import shutil

from tfds_builders.errors import DataError

__all__ = ['DataError', 'RunError', 'unwritable']


class RunError(ValueError):
    """Something about a run: its config, its workdir, a checkpoint. Its message is all that the command line prints."""


def unwritable(workdir, error, what=None):
    """The RunError for a write into a workdir that failed. what: the thing that could not be written, where it is not the workdir itself."""
    reason = getattr(error, 'strerror', None) or (str(error).strip().splitlines() or [type(error).__name__])[0]
    try:
        free = f'{shutil.disk_usage(workdir).free / 1e6:,.0f} MB are free there. '
    except OSError:
        free = ''
    return RunError(f'{what or f"workdir {workdir}"} cannot be written: {reason}. {free}Make room, or see to it that you may write there, then begin or resume '
                    f'with: python -m t2i_jax.main --workdir={workdir}. Or choose another --workdir.')
