"""The downloads of the first text-to-image papers, made in their layouts.

Each sentence and vector is found again under its image.
"""

import io
import pickle
import re
import tarfile
import zipfile

import numpy as np
import pytest
from test_imports import Torch, dumps

from t2i_jax.data.text import encode_chars
from tfds_builders import DataError
from tfds_builders.old_downloads import align, decode_chars, read_attngan, read_icml, read_stackgan

NUMBERS = (3, 1, 2)


def key(name):
    match = re.search(r'image_(\d+)(?:\.\w+)?$', name)
    return int(match[1]) if match else None


def sentences(number, count=10):
    return [f"flower {number}'s petals - {j} of them, are red; or not?" for j in range(count)]


def vectors(number, count=10):
    return np.random.default_rng(number).normal(size=(count, 1024)).astype(np.float32)


def chars(lines):
    """characters x sentences, as in the archives."""
    return np.stack([encode_chars(line) for line in lines], 1).astype(np.uint8)


def t7_file(number, **changes):
    record = {
        'char': chars(sentences(number)),
        'txt': vectors(number),
        'img': f'jpg/image_{number:05d}.jpg',
    } | changes
    return dumps({name: value for name, value in record.items() if value is not None})


def icml(folder='flowers_icml', **changes):
    """Files of Reed's archive; `changes` go into that of image 1."""
    files = {
        f'{folder}/class_{n:05d}/image_{n:05d}.t7': t7_file(n, **(changes if n == 1 else {}))
        for n in NUMBERS
    }
    return files | {
        f'{folder}/trainclasses.txt': b'class_00001\n',
        f'{folder}/testclasses.txt': b'class_00002\n',
        f'{folder}/trainids.txt': b'1\n',
        f'{folder}/class_00001/._image_00001.t7': b'of a Mac',
    }


def stackgan(protocol=0, text=True, **changes):
    """Files of StackGAN's zip: image 2 is the test part. changes: 'train/filenames' -> rows."""
    rows = {}
    for split, numbers in (('train', (3, 1)), ('test', (2,))):
        rows |= {
            f'{split}/filenames': [f'jpg/image_{n:05d}' for n in numbers],
            f'{split}/class_info': list(numbers),
            f'{split}/char-CNN-RNN-embeddings': [vectors(n) for n in numbers],
        }
    rows |= {name.replace('__', '/'): value for name, value in changes.items()}
    files = {
        f'flowers/{name}.pickle': pickle.dumps(value, protocol)
        for name, value in rows.items()
        if value is not None
    }
    if text:
        files |= {
            f'flowers/text_c10/class_{n:05d}/image_{n:05d}.txt': '\n'.join(sentences(n)).encode()
            for n in NUMBERS
        }
    return files | {
        'flowers/jpg/image_00001.jpg': b'picture',
        '__MACOSX/flowers/train/._filenames.pickle': b'?',
    }


def attngan(each=10, **changes):
    """Files of AttnGAN's folder, captions as ids of words with `<end>` behind them."""
    lines = {n: [re.findall(r'\w+', line) for line in sentences(n, each)] for n in NUMBERS}
    words = sorted({word for n in NUMBERS for line in lines[n] for word in line})
    known = {word: i for i, word in enumerate(['<end>', *words])}
    captions = [
        [[*(known[word] for word in line), 0] for n in numbers for line in lines[n]]
        for numbers in ((3, 1), (2,))
    ]
    content = (
        dict(
            captions=[*captions, {i: word for word, i in known.items()}, known],
            train=[f'class_00001/image_{n:05d}' for n in (3, 1)],
            test=['class_00001/image_00002'],
        )
        | changes
    )
    return {
        f'flowers/{name if name == "captions" else name + "/filenames"}.pickle': pickle.dumps(
            value, 2
        )
        for name, value in content.items()
        if value is not None
    }


def put(path, files):
    """The files as a tar.gz, a zip or a folder, by the name of the path."""
    if path.suffix == '.zip':
        with zipfile.ZipFile(path, 'w') as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    elif path.suffix == '.gz':
        with tarfile.open(path, 'w:gz') as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    else:
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return path


def same(embeddings, numbers=NUMBERS, count=10):
    return set(embeddings) == set(numbers) and all(
        embeddings[n].dtype == np.float32 and np.array_equal(embeddings[n], vectors(n, count))
        for n in numbers
    )


@pytest.mark.parametrize('name', ['icml.tar.gz', 'icml.zip', 'icml'])
def test_icml(tmp_path, name):
    texts = read_icml(put(tmp_path / name, icml()), key)
    assert texts.captions == {n: sentences(n) for n in NUMBERS} and same(texts.embeddings)
    assert texts.lists == {'train': 'class_00001\n', 'test': 'class_00002\n'}


def test_icml_files_of_other_shapes(tmp_path):
    turned = read_icml(
        put(
            tmp_path / 'turned',
            icml(char=chars(sentences(1)).T, txt=vectors(1).T.astype(np.float64)),
        ),
        key,
    )
    assert turned.captions[1] == sentences(1) and same(turned.embeddings)
    bare = read_icml(put(tmp_path / 'bare', icml(char=None)), key)
    assert bare.captions[1] == [] and same(bare.embeddings)
    signed = read_icml(
        put(tmp_path / 'signed', icml(char=chars(sentences(1)).astype(np.float64))), key
    )
    assert signed.captions[1] == sentences(1)
    coco = {
        f'train2014_ex_t7/COCO_train2014_{n:012d}.t7': t7_file(
            n, char=chars(sentences(n, 5)), txt=vectors(n, 5)
        )
        for n in NUMBERS
    }
    texts = read_icml(
        put(tmp_path / 'coco.tar.gz', coco), lambda name: int(re.search(r'_(\d{12})\.t7$', name)[1])
    )
    assert texts.captions == {n: sentences(n, 5) for n in NUMBERS} and same(
        texts.embeddings, count=5
    )


def test_characters_become_the_sentence_again():
    assert (
        decode_chars(encode_chars('A bird - with  "red" (wings); 3/4 of it!'))
        == 'a bird - with "red" (wings); 3/4 of it!'
    )
    assert (
        decode_chars(np.array([1, 37, 2, 60, 3, 0, 4])) == 'a-b-c'
    )  # both places of "-"; what stands behind a 0 is padding
    assert decode_chars(np.zeros(201)) == '' and len(decode_chars(encode_chars('a' * 300))) == 201


def test_a_record_that_cannot_be_read_is_collected(tmp_path):
    path = put(tmp_path / 'icml.tar.gz', icml(txt=Torch('os.execute', {})))
    problems = {}
    texts = read_icml(path, key, problems)
    assert set(texts.captions) == {2, 3} and list(problems) == [1] and 'os.execute' in problems[1]
    with pytest.raises(DataError, match="class_00001/image_00001.t7 holds .*'os.execute'"):
        read_icml(path, key)


@pytest.mark.parametrize('protocol', [0, 2, 5])
@pytest.mark.parametrize('name', ['flowers.zip', 'flowers'])
def test_stackgan(tmp_path, name, protocol):
    texts = read_stackgan(put(tmp_path / name, stackgan(protocol)), key)
    assert (
        texts.captions == {n: sentences(n) for n in NUMBERS}
        and same(texts.embeddings)
        and texts.lists == {}
    )


def test_stackgan_in_parts(tmp_path):
    only = {name: data for name, data in stackgan(text=False).items() if 'train/' in name}
    texts = read_stackgan(put(tmp_path / 'flowers.zip', only), key)
    assert texts.captions == {} and same(texts.embeddings, (3, 1))
    one_array = stackgan(
        2,
        **{
            'train__char-CNN-RNN-embeddings': np.stack([vectors(3), vectors(1)]),
            'train__class_info': None,
        },
    )
    assert same(read_stackgan(put(tmp_path / 'array.zip', one_array), key).embeddings)
    others = read_stackgan(
        tmp_path / 'flowers.zip', lambda name: None if '00001' in name else key(name)
    )
    assert set(others.embeddings) == {3}


@pytest.mark.parametrize('each', [5, 10])
@pytest.mark.parametrize('name', ['flowers.zip', 'flowers'])
def test_attngan(tmp_path, name, each):
    texts = read_attngan(put(tmp_path / name, attngan(each)), key)
    assert texts.captions == {
        n: [' '.join(re.findall(r'\w+', line)) for line in sentences(n, each)] for n in NUMBERS
    }
    assert texts.embeddings == {}


def test_vectors_are_put_into_the_order_of_the_captions():
    lines, rows = sentences(7), vectors(7)
    assert align(lines, [line.upper() for line in lines], rows)[1] is rows
    turned = align(lines[::-1], lines, rows)
    assert turned[0] == lines[::-1] and np.array_equal(turned[1], rows[::-1])
    long = ['a ' + 'very ' * 60 + 'red flower', 'a small one with petals that are blue']
    read = [decode_chars(encode_chars(line)) for line in long]
    assert len(read[0]) < len(long[0]) and align(long, read, rows[:2]) is not None
    assert np.array_equal(align(long[::-1], read, rows[:2])[1], rows[1::-1])
    assert align(lines, sentences(8), rows) is None and align(lines[:9], lines, rows) is None
    assert (
        align(['a red one', 'a rose'], ['a r', 'a rose'], rows[:2]) is not None
    )  # cut at a letter that is not in the alphabet
    assert align(['a rose', 'a red one'], ['a r', 'a rose'], rows[:2]) is None  # too short to tell
    assert align(lines, [''] * 10, rows) is None


def test_captions_without_a_vector_are_left_out():
    lines, rows = sentences(7), vectors(7)
    assert align(lines, lines[:5], rows[:5])[0] == lines[:5]
    kept, ordered = align(lines, [lines[8], lines[0], lines[4]], rows[:3])
    assert kept == [lines[0], lines[4], lines[8]] and np.array_equal(ordered, rows[[1, 2, 0]])
    assert align(lines, [lines[8], 'another one'], rows[:2]) is None
    kept, ordered = align(
        ['a red, small one', 'a red small one', 'a rose'], ['a rose', 'a red small one'], rows[:2]
    )
    assert kept == ['a red small one', 'a rose'] and np.array_equal(ordered, rows[1::-1])


HUGE = [[1.0] * 1000] * 1100  # one row that is named many times
DEEP = [1.0] * 9
for _ in range(8):
    DEEP = [DEEP] * 99  # 10 ** 17 numbers, in a file of a few lines


@pytest.mark.parametrize(
    'read, files, named',
    [
        (read_icml, {'readme.txt': b''}, 'holds no .t7 file'),
        (read_icml, {'class/other.t7': b''}, 'holds no .t7 file'),
        (read_icml, icml(txt=None), 'image_00001.t7 is not a table with "txt"'),
        (
            read_icml,
            icml(txt=vectors(1)[:, :1000]),
            r'image_00001.t7: sentence vectors have shape \(10, 1000\)',
        ),
        (read_icml, icml(txt=vectors(1) * np.inf), 'image_00001.t7: .*not finite'),
        (read_icml, icml(txt='text'), 'image_00001.t7: sentence vectors'),
        (
            read_icml,
            icml(char=chars(sentences(1, 9))),
            r'image_00001.t7: "char" has the shape \(201, 9\); expected characters x 10',
        ),
        (
            read_icml,
            icml(char=chars(sentences(1)) + np.uint8(9)),
            'image_00001.t7: "char" holds 9..79',
        ),
        (read_icml, icml(char=np.full((201, 10), np.nan)), 'image_00001.t7: "char" holds nan'),
        (
            read_icml,
            icml(char=[[1.0, 2.0], [3.0]]),
            'image_00001.t7: "char" is not a table of numbers',
        ),
        (
            read_icml,
            icml(char=HUGE),
            'image_00001.t7: "char" is not a table of numbers .*1101100 numbers',
        ),
        (
            read_icml,
            icml(char=DEEP),
            'image_00001.t7: "char" is not a table of numbers .*lists in lists',
        ),
        (read_icml, icml(txt=DEEP), 'image_00001.t7: sentence vectors'),
        (
            read_icml,
            icml(txt=[0.0] * 1024),
            r'image_00001.t7: sentence vectors have shape \(1024,\)',
        ),
        (
            read_stackgan,
            stackgan(**{'test__char-CNN-RNN-embeddings': [DEEP]}),
            'embeddings.pickle, jpg/image_00002: sentence vectors',
        ),
        (
            read_stackgan,
            stackgan(**{'train__char-CNN-RNN-embeddings': np.array(5)}),
            'embeddings.pickle has no rows',
        ),
        (
            read_attngan,
            attngan(captions=[[[1], [0] * 1001], [[1]], {1: 'red'}, {}]),
            r'holds the caption \[0, 0',
        ),
        (
            read_attngan,
            attngan(captions=[[[1], [float('inf')]], [[1]], {1: 'red'}, {}]),
            r'holds the caption \[inf',
        ),
        (
            read_attngan,
            attngan(captions=[[[1], DEEP], [[1]], {1: 'red'}, {}]),
            r'holds the caption \[\[',
        ),
        (read_icml, icml() | {'again/image_00001.t7': t7_file(1)}, 'holds image 1 twice'),
        (
            read_icml,
            icml() | {'flowers_icml/class_00001/image_00001.t7': t7_file(1)[:-100]},
            'image_00001.t7 cannot be read: it ends early',
        ),
        (read_stackgan, {'readme.txt': b''}, 'holds no train/filenames.pickle'),
        (
            read_stackgan,
            stackgan(**{'train__filenames': None}),
            'train/filenames.pickle is missing',
        ),
        (
            read_stackgan,
            stackgan(**{'train__filenames': {'a': 1}}),
            'train/filenames.pickle is not a list of names',
        ),
        (
            read_stackgan,
            stackgan(**{'test__char-CNN-RNN-embeddings': None}),
            'no test/char-CNN-RNN-embeddings.pickle',
        ),
        (
            read_stackgan,
            stackgan(**{'train__char-CNN-RNN-embeddings': [vectors(3)]}),
            'embeddings.pickle has 1 rows, and train/filenames.pickle 2',
        ),
        (
            read_stackgan,
            stackgan(**{'train__char-CNN-RNN-embeddings': 5}),
            'embeddings.pickle has no rows',
        ),
        (read_stackgan, stackgan(**{'train__class_info': [1]}), 'class_info.pickle has 1 rows'),
        (
            read_stackgan,
            stackgan(**{'test__char-CNN-RNN-embeddings': [['a']]}),
            'embeddings.pickle, jpg/image_00002: sentence vectors',
        ),
        (
            read_stackgan,
            stackgan(**{'test__filenames': ['jpg/image_00001']}),
            'holds image 1 twice',
        ),
        (
            read_stackgan,
            stackgan() | {'flowers/test/filenames.pickle': b'cos\nsystem\n(S"touch here"\ntR.'},
            'test/filenames.pickle asks for os.system',
        ),
        (
            read_stackgan,
            stackgan()
            | {'flowers/test/filenames.pickle': stackgan()['flowers/test/filenames.pickle'][:-9]},
            'test/filenames.pickle is damaged',
        ),
        (read_attngan, {'readme.txt': b''}, 'holds no captions.pickle'),
        (read_attngan, attngan(captions=[[1], [2]]), 'is not .train captions'),
        (read_attngan, attngan(train=None), 'train/filenames.pickle is missing'),
        (read_attngan, attngan(train=['image_00001'] * 3), '20 train captions for the 3 images'),
        (read_attngan, attngan(train=[]), '20 train captions for the 0 images'),
        (
            read_attngan,
            attngan(captions=[[[1], [99]], [[1]], {1: 'red'}, {}]),
            r'holds the caption \[99\]',
        ),
        (read_attngan, attngan(captions=[[[1], 5], [[1]], {1: 'red'}, {}]), 'holds the caption 5'),
        (read_attngan, attngan(test=['image_00001']), 'holds image 1 twice'),
    ],
)
def test_each_mistake_is_named_with_its_remedy(tmp_path, read, files, named):
    with pytest.raises(DataError, match=f'{named}(?s:.*)(Fetch|nothing was executed)'):
        read(put(tmp_path / 'files.zip', files), key)
