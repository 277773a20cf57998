"""Weights files are read as they were written, without torch.

What they ask for beside tensors is refused, nothing is executed.
"""

import collections
import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest

from t2i_jax.runtime.errors import DataError
from tfds_builders.foreign.weights import LEGACY, TYPES, parse_weights, read_weights

KINDS = {np.dtype(code): kind for kind, code in TYPES.items() if kind != 'BFloat16'}


# ----------------------------------------------------------- a writer as small as the formats allow
def word(text):
    return b'X' + struct.pack('<i', len(text.encode())) + text.encode()


def whole(*numbers):
    return b'(' + b''.join(b'J' + struct.pack('<i', n) for n in numbers) + b't'


def storage(key, kind, size, view=b''):
    return (
        b'('
        + word('storage')
        + f'ctorch\n{kind}Storage\n'.encode()
        + word(key)
        + word('cpu')
        + b'J'
        + struct.pack('<i', size)
        + view
        + b'tQ'
    )


def tensor(key, kind, size, shape, strides, offset=0, view=b''):
    return (
        b'ctorch._utils\n_rebuild_tensor_v2\n('
        + storage(key, kind, size, view)
        + b'J'
        + struct.pack('<i', offset)
        + whole(*shape)
        + whole(*strides)
        + b'\x89ccollections\nOrderedDict\n)RtR'
    )


def plain(key, array, kind=None):
    return tensor(
        key,
        kind or KINDS[array.dtype],
        array.size,
        array.shape,
        [s // array.itemsize for s in array.strides],
    )


def state_dict(entries):
    """The pickle of an ordered dictionary with the attribute that PyTorch gives it."""
    items = b''.join(word(name) + value for name, value in entries.items())
    return b'\x80\x02ccollections\nOrderedDict\n)R(' + items + b'u}' + word('_metadata') + b'}sb.'


def new_format(pickled, storages, more=(), compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', compression) as archive:
        for name, content in {
            'data.pkl': pickled,
            'version': b'3\n',
            **{f'data/{key}': s for key, s in storages.items()},
            **dict(more),
        }.items():
            archive.writestr(f'archive/{name}', content)
    return file.getvalue()


def old_format(pickled, storages, sizes, little=True, version=1001):
    head = (
        LEGACY
        + pickle.dumps(version, 2)
        + pickle.dumps(
            {'protocol_version': version, 'little_endian': little, 'type_sizes': {'int': 4}}, 2
        )
    )
    return (
        head
        + pickled
        + pickle.dumps(list(storages), 2)
        + b''.join(struct.pack('<q', sizes[key]) + content for key, content in storages.items())
    )


def both(entries, arrays):
    """The same state dict in both formats. arrays: {key: array or (bytes, number of elements)}"""
    content = {key: a.tobytes() if isinstance(a, np.ndarray) else a[0] for key, a in arrays.items()}
    sizes = {key: a.size if isinstance(a, np.ndarray) else a[1] for key, a in arrays.items()}
    return {
        'new': new_format(state_dict(entries), content),
        'old': old_format(state_dict(entries), content, sizes),
    }


@pytest.fixture(scope='module')
def arrays():
    rng = np.random.default_rng(0)
    floats = {f'float.{t}': rng.standard_normal((3, 4)).astype(t) for t in ('f2', 'f4', 'f8')}
    return {
        **floats,
        **{
            f'whole.{t}': rng.integers(0, 100, (2, 1, 3)).astype(t)
            for t in ('u1', 'i1', 'i2', 'i4', 'i8')
        },
        'flags': np.array([True, False]),
        'number': np.array(7),
    }


@pytest.mark.parametrize('form', ['new', 'old'])
def test_a_state_dict_of_every_type(form, arrays, tmp_path):
    files = both(
        {name: plain(str(i), a) for i, (name, a) in enumerate(arrays.items())},
        {str(i): a for i, a in enumerate(arrays.values())},
    )
    (tmp_path / 'x.pth').write_bytes(files[form])
    weights = read_weights(tmp_path / 'x.pth')
    assert list(weights) == list(arrays)
    for name, array in arrays.items():
        assert (
            weights[name].dtype == array.dtype
            and weights[name].shape == array.shape
            and not weights[name].flags.writeable
        ), name
        np.testing.assert_array_equal(weights[name], array)


@pytest.mark.parametrize('form', ['new', 'old'])
def test_parts_of_a_storage_in_any_order(form):
    content = np.arange(24, dtype=np.float32)
    view = b'(' + word('part') + b'J' + struct.pack('<i', 12) + b'J' + struct.pack('<i', 6) + b't'
    parameter = (
        b'ctorch._utils\n_rebuild_parameter\n('
        + tensor('0', 'Float', 24, (2, 3), (3, 1))
        + b'\x88ccollections\nOrderedDict\n)RtR'
    )
    entries = {
        'turned': tensor('0', 'Float', 24, (4, 6), (1, 4)),
        'tail': tensor('0', 'Float', 24, (2, 2), (10, 1), offset=3),
        'parameter': parameter,
        'view': tensor('0', 'Float', 24, (2, 3), (1, 2), view=view),
        'empty': tensor('0', 'Float', 24, (0, 3), (3, 1)),
        'before 0.4': b'ctorch._utils\n_rebuild_tensor\n('
        + storage('0', 'Float', 24)
        + b'K\x02'
        + whole(2)
        + whole(1)
        + b'tR',
    }
    weights = parse_weights(both(entries, {'0': content})[form])
    expected = {
        'turned': content.reshape(6, 4).T,
        'tail': content[[3, 4, 13, 14]].reshape(2, 2),
        'parameter': content[:6].reshape(2, 3),
        'view': content[12:18].reshape(3, 2).T,
        'empty': np.zeros((0, 3)),
        'before 0.4': content[2:4],
    }
    assert weights.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(weights[name], expected[name])


@pytest.mark.parametrize('form', ['new', 'old'])
def test_bfloat16_becomes_float32(form):
    bits = (np.array([1.5, -3, 1e30], np.float32).view(np.uint32) >> 16).astype('<u2')
    value = parse_weights(
        both({'x': tensor('0', 'BFloat16', 3, (3,), (1,))}, {'0': (bits.tobytes(), 3)})[form]
    )['x']
    assert value.dtype == np.float32 and value == pytest.approx([1.5, -3, 1e30], rel=2**-7)


def test_a_state_dict_in_a_checkpoint():
    inner = state_dict({'w': tensor('0', 'Float', 2, (2,), (1,))})[2:-1]
    pickled = b'\x80\x02}(' + word('epoch') + b'K\x05' + word('state_dict') + inner + b'u.'
    assert parse_weights(new_format(pickled, {'0': np.ones(2, np.float32).tobytes()}))[
        'w'
    ].tolist() == [1, 1]


@pytest.mark.parametrize('form', ['new', 'old'])
def test_a_payload_is_refused_by_name_and_not_run(form, tmp_path):
    target = tmp_path / 'owned'

    class Payload:
        def __reduce__(self):
            return open, (str(target), 'w')

    for pickled, named in (
        (pickle.dumps(collections.OrderedDict(x=Payload()), 2), '(io.open|_io.open)'),
        (pickle.dumps(Payload(), 4), '(io.open|_io.open)'),
        (b'cposix\nsystem\n(' + word(f'touch {target}') + b'tR.', 'posix.system'),
        (
            b'ctorchvision.models.inception\nInception3\n)\x81.',
            'torchvision.models.inception.Inception3',
        ),
        (
            b'ctorch._utils\n_rebuild_tensor_v2\n(' + word('a') + b'K\x00))tR.',
            'torch._utils._rebuild_tensor_v2 with the arguments',
        ),
        (
            b'('
            + word('storage')
            + b'ctorch._utils\n_rebuild_tensor\n'
            + word('0')
            + word('cpu')
            + b'K\x01tQ.',
            'outside',
        ),
    ):
        data = new_format(pickled, {}) if form == 'new' else old_format(pickled, {}, {})
        with pytest.raises(
            DataError, match=f'x.pth asks for .*{named}.*was refused.*nothing was executed'
        ):
            parse_weights(data, 'x.pth')
    assert not target.exists()


def test_nothing_is_spelt_out_that_a_small_file_makes_large():
    """A tuple of tuples of ... that share their parts: 2^40 leaves to print or to hash."""
    large = b'N' + b''.join(b'q%c\x30h%ch%c\x86' % ((i,) * 3) for i in range(40))
    head = b'ctorch._utils\n_rebuild_tensor_v2\n('
    for value in (head + storage('0', 'Float', 1) + b'K\x00' + large + large + b'tR', large + b'Q'):
        for data in both({'w': value}, {'0': np.ones(1, np.float32)}).values():
            with pytest.raises(DataError):
                parse_weights(data)
    good = old_format(state_dict({'w': tensor('0', 'Float', 1, (1,), (1,))}), {}, {})
    for data in (
        good[: -len(pickle.dumps([], 2))] + b'\x80\x02](' + large + b'e.' + bytes(12),
        LEGACY
        + pickle.dumps(1001, 2)
        + b'\x80\x02}('
        + word('little_endian')
        + large
        + b'u.'
        + good[good.index(b'\x80\x02ccoll') :],
    ):
        with pytest.raises(DataError):
            parse_weights(data)


def test_every_truncation_has_a_message(arrays):
    entries, content = (
        {name: plain(str(i), a) for i, (name, a) in enumerate(arrays.items())},
        {str(i): a for i, a in enumerate(arrays.values())},
    )
    for data in both(entries, content).values():
        for end in (*range(1, 40), *range(40, len(data) - 1, 23), len(data) - 1):
            with pytest.raises(DataError, match='is damaged|is not a weights file'):
                parse_weights(data[:end])


def test_tensors_outside_of_their_storage():
    for shape, strides, offset, size in (
        ((5,), (1,), 0, 4),
        ((2, 2), (3, 1), 0, 4),
        ((4,), (1,), 1, 4),
        ((1000, 1000), (0, 0), 0, 4),
        ((2,), (-1,), 1, 4),
        ((-2,), (1,), 0, 4),
    ):
        for data in both(
            {'w': tensor('0', 'Float', size, shape, strides, offset)},
            {'0': np.zeros(size, np.float32)},
        ).values():
            with pytest.raises(DataError, match='damaged'):
                parse_weights(data)
    wrong = tensor('0', 'Float', 10**9, (4,), (1,))
    for data in both({'w': wrong}, {'0': np.zeros(4, np.float32)}).values():
        with pytest.raises(DataError, match='damaged'):
            parse_weights(data)


def test_other_files_are_named(tmp_path):
    good = state_dict({'w': tensor('0', 'Float', 1, (1,), (1,))})
    one = {'0': np.ones(1, np.float32).tobytes()}
    loose = io.BytesIO()
    with zipfile.ZipFile(loose, 'w') as archive:
        archive.writestr('photo.jpg', b'0')
    for data, message in (
        (b'hello, this is no file of weights', 'is not a weights file: PyTorch state dicts'),
        (b'', 'is not a weights file'),
        (loose.getvalue(), 'zip archive of other things: photo.jpg'),
        (new_format(good, one, {'code/net.py': b'x'}), 'TorchScript'),
        (new_format(good, one, {'byteorder': b'big'}), 'big-endian'),
        (new_format(good, one, compression=zipfile.ZIP_DEFLATED), 'packed'),
        (new_format(good, {}), 'damaged .*data/0'),
        (old_format(good, one, {'0': 1}, little=False), 'another kind'),
        (old_format(good, one, {'0': 1}, version=7), 'another kind'),
        (new_format(b'\x80\x02]q\x00.', {}), 'holds a list, not a state dict'),
        (new_format(state_dict({}), {}), 'without entries'),
        (new_format(state_dict({'epoch': b'K\x05'}), {}), "'epoch' is a int, not a tensor"),
    ):
        with pytest.raises(DataError, match=message):
            parse_weights(data, 'x')


def test_npz(tmp_path, arrays):
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / 'x.npz', **arrays)
        weights = read_weights(tmp_path / 'x.npz')
        assert weights.keys() == arrays.keys() and all(
            np.array_equal(weights[k], a) and weights[k].dtype == a.dtype for k, a in arrays.items()
        )
    np.savez(tmp_path / 'x.npz', a=np.array([{}], object))
    with pytest.raises(DataError, match='damaged .*allow_pickle'):
        read_weights(tmp_path / 'x.npz')
    np.savez(tmp_path / 'x.npz', names=np.array(['a']))
    with pytest.raises(DataError, match="entry 'names' is of the type <U1"):
        read_weights(tmp_path / 'x.npz')
    np.savez_compressed(tmp_path / 'x.npz', a=np.zeros(10**7))
    with pytest.raises(DataError, match='unpacks to 0.1 GiB'):
        read_weights(tmp_path / 'x.npz')


def safetensors(header, content):
    text = json.dumps(header).encode()
    return struct.pack('<Q', len(text)) + text + content


def test_safetensors():
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1.5, -2], np.float32)
    header = {
        '__metadata__': {'format': 'pt'},
        'a': {'dtype': 'F32', 'shape': [2, 3], 'data_offsets': [0, 24]},
        'b': {'dtype': 'BF16', 'shape': [2], 'data_offsets': [24, 28]},
        'none': {'dtype': 'I64', 'shape': [0], 'data_offsets': [28, 28]},
    }
    data = safetensors(header, a.tobytes() + (b.view(np.uint32) >> 16).astype('<u2').tobytes())
    weights = parse_weights(data)
    assert list(weights) == ['a', 'b', 'none'] and weights['none'].shape == (0,)
    np.testing.assert_array_equal(weights['a'], a)
    np.testing.assert_array_equal(weights['b'], b)
    for end in range(9, len(data)):
        with pytest.raises(DataError, match='damaged'):
            parse_weights(data[:end])
    for entry, message in (
        (
            {'dtype': 'F8_E4M3', 'shape': [4], 'data_offsets': [0, 4]},
            "'a' is of the type F8_E4M3; F64, F32",
        ),
        ({'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 4]}, 'damaged'),
        ({'dtype': 'F32', 'shape': [1], 'data_offsets': [-4, 0]}, 'damaged'),
        ({'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}, 'damaged'),
        ({'dtype': 'F32'}, 'damaged'),
        ([], 'damaged'),
    ):
        with pytest.raises(DataError, match=message):
            parse_weights(safetensors({'a': entry}, b'\0' * 4))


@pytest.mark.parametrize('new', [True, False])
def test_what_torch_saves(new, tmp_path):
    torch = pytest.importorskip('torch')
    base = torch.arange(24.0).reshape(2, 3, 4)
    state = collections.OrderedDict(
        {
            str(t): torch.arange(6).to(t).reshape(2, 3)
            for t in (
                torch.float64,
                torch.float32,
                torch.float16,
                torch.bfloat16,
                torch.int64,
                torch.int32,
                torch.int16,
                torch.int8,
                torch.uint8,
                torch.bool,
            )
        }
    )
    state |= {
        'turned': base.permute(2, 0, 1),
        'part': base[:, 1:, ::2],
        'channels last': torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        'parameter': torch.nn.Parameter(base),
        'number': torch.tensor(5),
    }
    state |= torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3)).state_dict()
    for value in (state, {'state_dict': state, 'epoch': 3}):
        torch.save(value, tmp_path / 'x.pth', _use_new_zipfile_serialization=new)
        weights = read_weights(tmp_path / 'x.pth')
        assert list(weights) == list(state)
        for name, expected in state.items():
            expected = (
                expected.detach().float() if expected.dtype is torch.bfloat16 else expected.detach()
            )
            assert weights[name].dtype == expected.numpy().dtype
            np.testing.assert_array_equal(weights[name], expected.numpy())
    torch.save(torch.nn.Linear(2, 2), tmp_path / 'x.pth', _use_new_zipfile_serialization=new)
    with pytest.raises(DataError, match='torch.nn.modules.linear.Linear'):
        read_weights(tmp_path / 'x.pth')
