"""TensorBoard's file of one process, by tensorboardX's records.

They are written by the caller, not by a thread of tensorboardX's: that one ends at the first write that fails, unseen, and training then
waits for ever for room in its queue.
"""

import pathlib
import socket
import time

from tensorboardX import RecordWriter, summary
from tensorboardX.proto.event_pb2 import Event, SessionLog

FLUSH = 30  # seconds after which what was written can be seen


class Events:
    """Appends to a file of its own in `folder`; TensorBoard drops what earlier files have after `step`. A write that fails raises OSError."""

    def __init__(self, folder, step):
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names, so a clock that was set back must not put this one before an older one
        stamps = [path.name.split('.')[3] for path in folder.glob('events.out.tfevents.*')]
        stamp = max([int(time.time())] + [int(stamp) + 1 for stamp in stamps if stamp.isdigit()])
        self.file = RecordWriter(
            str(folder / f'events.out.tfevents.{stamp:010d}.{socket.gethostname()}')
        )
        self.add(file_version='brain.Event:2')
        self.add(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        self.flush()

    def add(self, **fields):
        self.file.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def scalar(self, step, name, value):
        self.add(step=step, summary=summary.scalar(name, value))
        if time.monotonic() - self.flushed > FLUSH:
            self.flush()

    def image(self, step, name, picture):
        """picture: h w 3 uint8."""
        self.add(step=step, summary=summary.image(name, picture, dataformats='HWC'))

    def flush(self):
        """Hands what was written to the system."""
        self.file.flush()
        self.flushed = time.monotonic()

    def close(self):
        self.file.close()
