"""Torch7's binary files (.t7) as plain data, read without executing anything.

They hold numbers, strings, tables, tensors, and modules, which become their fields.
"""

import re
import struct

import numpy as np

from tfds_builders.errors import DataError, quoted
from tfds_builders.files import HUGE, read_bytes

NIL, NUMBER, STRING, TABLE, TORCH, BOOLEAN = range(6)
FUNCTIONS = 6, 7, 8
TYPES = {
    'Double': '<f8',
    'Float': '<f4',
    'Half': '<f2',
    'Byte': 'u1',
    'Char': 'i1',
    'Short': '<i2',
    'Int': '<i4',
    'Long': '<i8',
}
# CudaTensor is of floats
ARRAY = re.compile(rf'torch\.(?:Cuda|(?:Cuda)?({"|".join(TYPES)}))(Tensor|Storage)')
MODULE = re.compile(r'(?:nn|nngraph|graph|cudnn)\.[\w.]+')
MAX_DIMENSIONS = 32


class Module(dict):
    """The fields of an nn module by name; `torch_class` is its class, e.g. 'nn.Linear'.

    Compared and hashed by identity, since the graphs of nngraph use modules as keys.
    """

    __slots__ = ('torch_class',)
    __hash__, __eq__, __ne__ = object.__hash__, object.__eq__, object.__ne__

    def __init__(self, torch_class):
        super().__init__()
        self.torch_class = torch_class

    def __repr__(self):
        return f'<{self.torch_class}: {", ".join(map(str, self))}>'


def load(path):
    """Return the object in a file, as `loads` gives it. Raises DataError."""
    return loads(read_bytes(path, HUGE), quoted(path))


def loads(data: bytes, name='the .t7 file'):
    """Return the object in these bytes; `name` stands in messages.

    A table becomes a list where its keys are 1..n, else a dictionary (so does one that contains
    itself, seen from inside); numbers are floats, as keys integers where they are whole; a tensor
    is a read-only array of its shape, a storage one of one dimension; an nn module is a `Module`.
    Raises DataError for functions, other classes, and files that are damaged or something else.
    """
    reader = _Reader(data, name)
    # reading is a chain of generators, so that the depth of a file has no limit
    calls = [reader.object()]
    value = None
    while calls:
        try:
            calls.append(calls[-1].send(value))
            value = None
        except StopIteration as done:
            calls.pop()
            value = done.value
    return value


class _Reader:
    def __init__(self, data, name):
        self.data, self.name, self.at, self.memo = data, name, 0, {}

    def damaged(self, what):
        return DataError(
            f'{self.name} cannot be read: {what} (byte {self.at} of {len(self.data)}). It is '
            'damaged, or no binary Torch7 file. '
            'Fetch it again.'
        )

    def refused(self, what):
        return DataError(
            f'{self.name} holds {what} (byte {self.at}), which was refused: only numbers, strings, '
            'tables, tensors and nn modules '
            'are read, and nothing is executed. Fetch it from its authors, or save it again '
            'without that.'
        )

    def take(self, size):
        if not 0 <= size <= len(self.data) - self.at:
            raise self.damaged(f'it ends early, or names an impossible length ({size} bytes)')
        self.at += size
        return self.data[self.at - size : self.at]

    def integer(self):
        return struct.unpack('<i', self.take(4))[0]

    def longs(self, count):
        return struct.unpack(f'<{count}q', self.take(8 * count))

    def string(self):
        return self.take(self.integer()).decode('utf-8', 'replace')

    def object(self):
        """Read an object, as a generator.

        Like all readers of nested things, it yields the readers of its parts and is sent what they
        return.
        """
        tag = self.integer()
        if tag == NIL:
            return None
        if tag == NUMBER:
            return struct.unpack('<d', self.take(8))[0]
        if tag == STRING:
            return self.string()
        if tag == BOOLEAN:
            return bool(self.integer())
        if tag in FUNCTIONS:
            raise self.refused(f'a Lua function (type {tag})')
        if tag not in (TABLE, TORCH):
            raise self.damaged(f'there is no type {tag}')
        index = self.integer()
        if index not in self.memo:
            self.memo[index] = yield (self.table if tag == TABLE else self.torch)(index)
        return self.memo[index]

    def table(self, index):
        self.memo[index] = table = {}
        count = self.integer()
        if count < 0:
            raise self.damaged(f'a table has {count} entries')
        for _ in range(count):
            key = yield self.object()
            if isinstance(key, float) and key.is_integer():
                key = int(key)
            if not isinstance(key, (int, float, str, Module)):
                raise self.damaged(f'the key of a table is a {type(key).__name__}')
            table[key] = yield self.object()
        whole = range(1, len(table) + 1)
        return [table[i] for i in whole] if table and all(i in table for i in whole) else table

    def torch(self, index):
        name = self.string()
        # older files have no version before the class
        if re.fullmatch(r'V \d+', name):
            name = self.string()
        match = ARRAY.fullmatch(name)
        if match:
            dtype = np.dtype(TYPES[match[1] or 'Float'])
            return self.storage(dtype) if match[2] == 'Storage' else (yield self.tensor(dtype))
        if not MODULE.fullmatch(name):
            raise self.refused(f'an object of the class {name!r}')
        self.memo[index] = module = Module(name)
        fields = yield self.object()
        if not isinstance(fields, (dict, list)):
            raise self.damaged(f'{name} is not a table of fields')
        module.update(fields if isinstance(fields, dict) else enumerate(fields, 1))
        return module

    def storage(self, dtype):
        array = np.frombuffer(self.take(self.longs(1)[0] * dtype.itemsize), dtype)
        return np.require(array, requirements='A')

    def tensor(self, dtype):
        dimensions = self.integer()
        if not 0 <= dimensions <= MAX_DIMENSIONS:
            raise self.damaged(f'a tensor has {dimensions} dimensions')
        sizes, strides, (offset,) = self.longs(dimensions), self.longs(dimensions), self.longs(1)
        storage = yield self.object()
        if storage is None or not dimensions:
            return np.zeros(0, dtype)
        if not isinstance(storage, np.ndarray) or storage.ndim != 1 or storage.dtype != dtype:
            raise self.damaged(f'a tensor of {dtype} has no storage of its type')
        sizes_and_strides = [
            (size, stride if size > 1 else 0) for size, stride in zip(sizes, strides)
        ]
        elements = 1
        for size in sizes:
            elements *= size
        last = offset - 1 + sum((size - 1) * stride for size, stride in sizes_and_strides)
        # strides of 0 repeat elements: more of them than the file has bytes are not data
        if (
            min(sizes) < 1
            or min(strides) < 0
            or offset < 1
            or last >= len(storage)
            or elements > len(self.data)
        ):
            raise self.damaged(
                f'a tensor of {sizes} with the strides {strides} from {offset} on leaves its '
                f'storage of {len(storage)}'
            )
        return np.lib.stride_tricks.as_strided(
            storage[offset - 1 :],
            sizes,
            [stride * dtype.itemsize for _, stride in sizes_and_strides],
            writeable=False,
        )
