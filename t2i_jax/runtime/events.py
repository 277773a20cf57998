"""TensorBoard's file of one process, made of tensorboardX's records.

The caller writes them, not a thread of tensorboardX's: that one ends unseen at the first write that
fails, and training then waits for ever for room in its queue.
"""

import pathlib
import socket
import time

from tensorboardX import RecordWriter, summary
from tensorboardX.proto.event_pb2 import Event, SessionLog

# seconds after which written values can be seen
FLUSH = 30


class Events:
    """A new file of events in `folder`.

    TensorBoard drops events after `step` of earlier files. A write that fails raises OSError.
    """

    def __init__(self, folder, step):
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names: a clock that was set back must not
        # put this one before an older one
        stamps = [path.name.split('.')[3] for path in folder.glob('events.out.tfevents.*')]
        stamp = max([int(time.time())] + [int(stamp) + 1 for stamp in stamps if stamp.isdigit()])
        name = f'events.out.tfevents.{stamp:010d}.{socket.gethostname()}'
        self.file, self.flushed = RecordWriter(str(folder / name)), 0.0
        self.add(file_version='brain.Event:2')
        self.add(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        self.flush()

    def add(self, **fields):
        """Write an event with these fields of its record."""
        self.file.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def scalar(self, step, name, value):
        """Write a number."""
        self.add(step=step, summary=summary.scalar(name, value))
        if time.monotonic() - self.flushed > FLUSH:
            self.flush()

    def image(self, step, name, picture):
        """Write a picture, h w 3 uint8."""
        self.add(step=step, summary=summary.image(name, picture, dataformats='HWC'))

    def flush(self):
        """Hand everything written to the operating system."""
        self.file.flush()
        self.flushed = time.monotonic()

    def close(self):
        """Close the file."""
        self.file.close()
