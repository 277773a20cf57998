"""Weights from files, read without torch and without executing anything.

PyTorch state dicts (both formats of torch.save), .npz and .safetensors.
"""

import io
import json
import math
import struct
import zipfile

import numpy as np

from tfds_builders.errors import DataError, quoted
from tfds_builders.files import HUGE, read_bytes
from tfds_builders.foreign import pickles

# the pickled magic number of torch.save before 1.6
LEGACY = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
TYPES = {
    'Double': '<f8',
    'Float': '<f4',
    'Half': '<f2',
    'BFloat16': 'bfloat16',
    'Long': '<i8',
    'Int': '<i4',
    'Short': '<i2',
    'Char': 'i1',
    'Byte': 'u1',
    'Bool': '?',
}
SAFE_TYPES = {
    'F64': '<f8',
    'F32': '<f4',
    'F16': '<f2',
    'BF16': 'bfloat16',
    'I64': '<i8',
    'I32': '<i4',
    'I16': '<i2',
    'I8': 'i1',
    'U8': 'u1',
    'BOOL': '?',
}
BUILDERS = ('_rebuild_tensor', '_rebuild_tensor_v2', '_rebuild_parameter')


def read_weights(path):
    """Read a weights file -> {name: array}; its content decides the format, not its ending.

    .pth, .pt: a state dict of torch.save, or a dictionary with one under 'state_dict'; .npz:
    arrays; .safetensors. Arrays are read-only and of the stored type, but bfloat16 becomes float32.
    Nothing is executed.

    Raises DataError for a damaged file, and for anything else in it, which the message names.
    """
    return parse_weights(read_bytes(path, HUGE), quoted(path))


def parse_weights(data: bytes, name='the weights'):
    """Read weights from the bytes of a file, see `read_weights`; `name` stands in messages."""
    try:
        if data.startswith(LEGACY):
            return _legacy(data, name)
        if data.startswith(b'PK'):
            return _zip(data, name)
        if data[8:9] == b'{':
            return _safetensors(data, name)
    except DataError:
        raise
    # a damaged file may raise anything in the readers
    except Exception as error:
        raise DataError(
            f'{name} is damaged ({type(error).__name__}: {error}). Fetch it again.'
        ) from None
    raise DataError(
        f'{name} is not a weights file: PyTorch state dicts (.pth, .pt), .npz and .safetensors are '
        'read. Check the path.'
    )


# ------------------------------------------------------------------------------------- state dicts
class _Storage:
    """Content that the pickle names and the file holds elsewhere.

    part: (offset, size) of a view of a larger storage
    """

    def __init__(self, kind, key, size, part):
        self.kind, self.key, self.size, self.part = kind, key, size, part


class _Tensor:
    """A tensor before its storage is read."""

    def __init__(self, storage, offset, shape, strides):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides


class TorchMachine(pickles.Machine):
    """A reader of the pickle of a state dict.

    Tensors stay descriptions until the storages are there.
    """

    names = {
        **pickles.NAMES,
        **{f'torch._utils.{rule}': rule for rule in BUILDERS},
        **{f'torch.{kind}Storage': f'storage {kind}' for kind in TYPES},
    }

    def refused(self, what):
        return DataError(
            f'{self.name} asks for {what}, which was refused: only state dicts of tensors are '
            'read, and nothing was executed. Save it again where it comes from: '
            'torch.save(model.state_dict(), path).'
        )

    def outside(self):
        identity = self.stack.pop()
        word, kind, key, _, size, *view = identity
        rule = self.names.get(kind, '') if type(kind) is pickles.Name else ''
        known = word == 'storage' and rule.startswith('storage ')
        if not known or type(key) is not str or len(view) > 1 or not _whole((size,)):
            raise self.refused('an object outside of the pickle that is not a storage of numbers')
        part = view[0][1:] if view and view[0] is not None else (0, size)
        if not _whole(part) or len(part) != 2:
            raise ValueError('a view of a storage has no place')
        self.stack.append(_Storage(TYPES[rule.removeprefix('storage ')], key, size, part))

    def value(self, name, rule, args):
        if rule == '_rebuild_parameter' and type(args[0]) is _Tensor:
            return args[0]
        if rule in BUILDERS[:2] and type(args[0]) is _Storage:
            storage, offset, shape, strides = args[:4]
            tuples = type(shape) is tuple and type(strides) is tuple
            if not tuples or len(shape) != len(strides) or not _whole((offset, *shape, *strides)):
                raise ValueError('a tensor has no sizes or strides')
            return _Tensor(storage, offset, shape, strides)
        return super().value(name, rule, args)

    def build(self):
        if type(self.stack[-2]) is dict and type(self.stack[-1]) is dict:
            # attributes of a state dict: the versions of its layers
            self.stack.pop()
        else:
            super().build()


def _whole(numbers):
    return all(type(n) is int and n >= 0 for n in numbers)


def _legacy(data, name):
    # magic number, version, the machine that wrote it, the object, the keys of its storages
    at, parts = 0, []
    for _ in range(5):
        machine = TorchMachine(data, name, at)
        parts.append(machine.run())
        at = machine.at
    _, version, system, value, keys = parts
    if version != 1001 or system.get('little_endian') is not True:
        raise DataError(
            f'{name} was written by a PyTorch of another kind, or on a big-endian machine. '
            'Save it again with a current one.'
        )
    tensors = _tensors(value, name)
    kinds = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    storages = {}
    for key in keys:
        (size,) = struct.unpack_from('<q', data, at)
        at += 8
        if type(key) is not str or key not in kinds:
            raise ValueError('a storage belongs to no tensor')
        bytes_ = size * _item(kinds[key].kind)
        if size != kinds[key].size or at + bytes_ > len(data):
            raise ValueError(
                f'the storage {key} of {size} elements is cut off, or of another size than its '
                'tensors say'
            )
        storages[key] = _array(kinds[key].kind, data, size, at)
        at += bytes_
    return _resolved(tensors, storages)


def _zip(data, name):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        heads = [entry for entry in sizes if entry.endswith('/data.pkl')]
        if not heads:
            return _npz(data, sizes, name)
        head = heads[0].removesuffix('data.pkl')
        if any(entry.startswith(f'{head}code/') for entry in sizes):
            raise DataError(
                f'{name} is a TorchScript program, which is not run. Give the state dict (.pth) of '
                'the same network.'
            )
        packed = any(entry.compress_type for entry in archive.infolist())
        if packed or sum(sizes.values()) > len(data):
            raise ValueError('its entries are packed, which torch.save never does')
        order = f'{head}byteorder'
        if order in sizes and archive.read(order) != b'little':
            raise DataError(
                f'{name} was written on a big-endian machine. Save it again on a usual one.'
            )
        tensors = _tensors(TorchMachine(archive.read(f'{head}data.pkl'), name).run(), name)
        storages = {}
        for storage in (tensor.storage for tensor in tensors.values()):
            if storage.key not in storages:
                content = archive.read(f'{head}data/{storage.key}')
                storages[storage.key] = _array(storage.kind, content, storage.size)
        return _resolved(tensors, storages)


def _tensors(value, name):
    value = value.get('state_dict', value) if type(value) is dict else value
    if type(value) is not dict or not value:
        empty = ' without entries' if value == {} else ''
        raise DataError(
            f'{name} holds a {type(value).__name__}{empty}, not a state dict. '
            'Save it again where it comes from: torch.save(model.state_dict(), path).'
        )
    for key, tensor in value.items():
        if type(key) is not str or type(tensor) is not _Tensor:
            raise DataError(
                f'{name}: the entry {key!r} is a {type(tensor).__name__}, not a tensor. '
                'Save model.state_dict() alone.'
            )
    return value


def _resolved(tensors, storages):
    return {
        name: _strided(tensor, storages[tensor.storage.key], name)
        for name, tensor in tensors.items()
    }


def _strided(tensor, content, name):
    start, size = tensor.storage.part
    if start + size > len(content):
        raise ValueError(f'{name} views more than its storage holds')
    content = content[start : start + size]
    count = math.prod(tensor.shape)
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides))
    if count and (last >= size or count > size) or len(tensor.shape) > 32:
        raise ValueError(
            f'{name} of shape {tensor.shape} and strides {tensor.strides} does not lie in its '
            f'storage of {size} elements'
        )
    if not count:
        return np.zeros(tensor.shape, content.dtype)
    return np.lib.stride_tricks.as_strided(
        content[tensor.offset :],
        tensor.shape,
        [step * content.itemsize for step in tensor.strides],
        writeable=False,
    )


# ----------------------------------------------------------------------------------- plain formats
def _npz(data, sizes, name):
    if not sizes or not all(entry.endswith('.npy') for entry in sizes):
        raise DataError(
            f'{name} is a zip archive of other things: {", ".join(sorted(sizes)[:3])}. '
            'Expected a state dict or an .npz of arrays.'
        )
    if sum(sizes.values()) > 2**26 + 16 * len(data):
        raise DataError(
            f'{name} unpacks to {sum(sizes.values()) / 2**30:.1f} GiB, which was refused. '
            'Save it again with numpy.savez.'
        )
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        weights = {key: arrays[key] for key in arrays.files}
    for key, array in weights.items():
        if array.dtype.kind not in 'biuf':
            raise DataError(
                f'{name}: the entry {key!r} is of the type {array.dtype}; expected numbers.'
            )
        array.flags.writeable = False
    return weights


def _safetensors(data, name):
    (length,) = struct.unpack_from('<Q', data)
    if length > len(data) - 8:
        raise ValueError('it ends in its header')
    header, start, weights = json.loads(data[8 : 8 + length]), 8 + length, {}
    header.pop('__metadata__', None)
    for key, entry in header.items():
        kind, shape, (first, end) = entry['dtype'], tuple(entry['shape']), entry['data_offsets']
        if kind not in SAFE_TYPES:
            raise DataError(
                f'{name}: the entry {key!r} is of the type {kind}; {", ".join(SAFE_TYPES)} are '
                'read.'
            )
        kind, count = SAFE_TYPES[kind], math.prod(shape)
        fits = _whole((first, end, *shape)) and count * _item(kind) == end - first
        if not fits or start + end > len(data):
            raise ValueError(f'the entry {key!r} of shape {shape} has the bytes {first} to {end}')
        weights[key] = _array(kind, data, count, start + first).reshape(shape)
    return weights


def _item(kind):
    return 2 if kind == 'bfloat16' else np.dtype(kind).itemsize


def _array(kind, data, count, at=0):
    if kind != 'bfloat16':
        return np.frombuffer(data, kind, count, at)
    wide = np.frombuffer(data, '<u2', count, at).astype(np.uint32)
    # the upper half of a float32
    wide = (wide << 16).view(np.float32)
    wide.flags.writeable = False
    return wide
