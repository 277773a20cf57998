"""The files of the official AttnGAN (taoxugit/AttnGAN, PyTorch) as arrays of our networks.

| file | tensor that only it has | in ours |
|---|---|---|
| netG*.pth, *_AttnGAN2.pth, *_AttnDCGAN2.pth | ca_net | `G` |
| netD0.pth, netD1.pth, netD2.pth | img_code_s16 | `D[i]`, by the side of its pictures |
| text_encoder*.pth | rnn | `text`, with two biases a gate |
| image_encoder*.pth | emb_features | `image`, trunk 'inception' |
| captions.pickle | a list of captions, captions, id -> word, word -> id | vocabulary.json |

Names of files say nothing. Convolutions lie there as o i h w, dense layers as o i; the first dense
layer of G is cut as c h w there, as h w c here; a discriminator's picture code stands before the
sentence there, behind it here; the last layer of a discriminator is a convolution over its whole
map. Gates of the LSTM have the same order in both: i, f, g, o.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from einops import rearrange

from t2i_jax.data.text import Vocabulary
from t2i_jax.encoders import inception
from t2i_jax.encoders.pretrained import checked
from t2i_jax.runtime.errors import DataError, explained, quoted
from tfds_builders.files import require_file
from tfds_builders.foreign import pickles
from tfds_builders.foreign.weights import LEGACY, read_weights

SIDES = {'netD of 64 px': 64, 'netD of 128 px': 128, 'netD of 256 px': 256}
# kind of file -> the start of the name of one of its tensors
KINDS = {
    'netG': 'ca_net.',
    'netD': 'img_code_s16.',
    'text_encoder': 'rnn.',
    'image_encoder': 'emb_features.',
}


class Part(NamedTuple):
    """One tensor of a file.

    shape: there
    path: in the tree of our network
    turn: a function of the array there -> the one here
    """

    shape: tuple
    path: tuple
    turn: Callable[[Any], Any]


# ------------------------------------------------------------------------------------------ layers
def same(x):
    """Leave an array as it is."""
    return x


def conv(name, path, c, d, kernel=3, turn=same):
    """{name: Part} of a convolution of c to d channels. turn: of the kernel as h w i o."""

    def ours(x):
        return turn(rearrange(x, 'o i h w -> h w i o'))

    return {f'{name}.weight': Part((d, c, kernel, kernel), (*path, 'kernel'), ours)}


def pointwise(x):
    """A convolution of 1 x 1 -> a dense layer."""
    return x[:, :, 0, 0].T


def dense(name, path, c, d):
    """{name: Part} of a dense layer of c to d channels, with its bias."""
    return {
        f'{name}.weight': Part((d, c), (*path, 'kernel'), np.transpose),
        f'{name}.bias': Part((d,), (*path, 'bias'), same),
    }


def norm(name, path, c, turn=same):
    """{name: Part} of a batch normalisation."""
    parts = {'weight': 'scale', 'bias': 'bias', 'running_mean': 'mean', 'running_var': 'var'}
    return {f'{name}.{theirs}': Part((c,), (*path, ours), turn) for theirs, ours in parts.items()}


def conv_norm(name, numbers, path, c, d):
    """A convolution and its norm, entries of one list there."""
    return conv(f'{name}.{numbers[0]}', (*path, 'conv'), c, d) | norm(
        f'{name}.{numbers[1]}', (*path, 'norm'), d
    )


# ---------------------------------------------------------------------------------------- networks
def generator(d, gf, nz, nc, residuals, scales, dcgan):
    """{name: Part} of G_NET, or of G_DCGAN.

    d, gf, nz, nc: widths of the sentence, the generator, the noise, the condition
    residuals: blocks of each further scale
    scales: number of scales
    dcgan: the network is G_DCGAN, with pictures of the last scale only
    """
    wide = 16 * gf

    # both halves of the gate: c h w -> h w c
    def units(x):
        return rearrange(x, '(g c h w) ... -> (g h w c) ...', g=2, h=4, w=4)

    table = dense('ca_net.fc', ('ca', 'layer'), d, 4 * nc)
    first = Part((32 * wide, nc + nz), ('first', 'first', 'kernel'), lambda x: units(x).T)
    table |= {'h_net1.fc.0.weight': first}
    table |= norm('h_net1.fc.1', ('first', 'norm'), 32 * wide, units)
    for i in range(4):
        table |= conv_norm(
            f'h_net1.upsample{i + 1}', (1, 2), ('first', 'ups', i), wide >> i, wide >> i
        )
    for i in range(scales - 1):
        name, path = f'h_net{i + 2}', ('next', i)
        project = Part((gf, d, 1, 1), (*path, 'attention', 'project', 'kernel'), pointwise)
        table |= {f'{name}.att.conv_context.weight': project}
        for j in range(residuals):
            block, inside = f'{name}.residual.{j}.block', (*path, 'residuals', j)
            table |= conv_norm(block, (0, 1), (*inside, 'keep'), 2 * gf, 4 * gf)
            table |= conv_norm(block, (3, 4), inside, 2 * gf, 2 * gf)
        table |= conv_norm(f'{name}.upsample', (1, 2), (*path, 'up'), 2 * gf, 2 * gf)
    for i, name in enumerate(['img_net'] if dcgan else [f'img_net{i + 1}' for i in range(scales)]):
        table |= conv(f'{name}.img.0', ('to_images', i, 'conv'), gf, 3)
    return table


def discriminator(side, d, df, real):
    """{name: Part} of D_NET64, D_NET128 or D_NET256.

    side: of its pictures, in pixels
    d, df: widths of the sentence and of the discriminator
    real: it has an unconditional head
    """
    table = conv('img_code_s16.0', ('trunk', 'first'), 3, df, 4)
    layers = [
        ('img_code_s16.2', 'img_code_s16.3', 1, 2, 4),
        ('img_code_s16.5', 'img_code_s16.6', 2, 4, 4),
        ('img_code_s16.8', 'img_code_s16.9', 4, 8, 4),
    ]
    further = {
        64: [],
        128: [('s32', 8, 16, 4), ('s32_1', 16, 8, 3)],
        256: [('s32', 8, 16, 4), ('s64', 16, 32, 4), ('s64_1', 32, 16, 3), ('s64_2', 16, 8, 3)],
    }[side]
    layers += [(f'img_code_{name}.0', f'img_code_{name}.1', *sizes) for name, *sizes in further]
    for i, (weight, scale, a, b, kernel) in enumerate(layers):
        table |= conv(weight, ('trunk', 'convs', i), a * df, b * df, kernel)
        table |= norm(scale, ('trunk', 'norms', i), b * df)

    # inputs: code, sentence -> sentence, code
    def sentence_first(x):
        return np.concatenate([x[:, :, 8 * df :], x[:, :, : 8 * df]], 2)

    def flat(x):
        return rearrange(x, 'o c h w -> (h w c) o')

    joint = 'COND_DNET.jointConv'
    table |= conv(f'{joint}.0', ('matching', 'joint'), 8 * df + d, 8 * df, turn=sentence_first)
    table |= norm(f'{joint}.1', ('matching', 'norm'), 8 * df)
    for name, head in (('COND_DNET', 'matching'), *([('UNCOND_DNET', 'real')] if real else [])):
        table |= {
            f'{name}.outlogits.0.weight': Part((1, 8 * df, 4, 4), (head, 'logit', 'kernel'), flat),
            f'{name}.outlogits.0.bias': Part((1,), (head, 'logit', 'bias'), same),
        }
    return table


def text_encoder(words, d, embedding):
    """{name: Part} of RNN_ENCODER with an LSTM. words: the padding included."""
    h = d // 2
    table = {'encoder.weight': Part((words, embedding), ('embed', 'embedding'), same)}
    for direction, end in (('forward', ''), ('backward', '_reverse')):
        for name, layer, n in (('ih', 'input', embedding), ('hh', 'hidden', h)):
            kernel = Part((4 * h, n), (direction, layer, 'kernel'), np.transpose)
            bias = Part((4 * h,), (direction, layer, 'bias'), same)
            table |= {f'rnn.weight_{name}_l0{end}': kernel, f'rnn.bias_{name}_l0{end}': bias}
    return table


def image_heads(d):
    """{name: Part} of the layers of CNN_ENCODER behind Inception's trunk."""
    local = Part((d, 768, 1, 1), ('local', 'kernel'), pointwise)
    return {'emb_features.weight': local} | dense('emb_cnn_code', ('whole',), 2048, d)


def trunk_shapes():
    """{name: shape} of the tensors of Inception's trunk."""
    return {
        name: shape
        for name, shape in inception.shapes('torchvision').items()
        if not name.startswith('fc.')
    }


def turned(weights, table):
    """Convert the tensors of a network -> (parameters, running statistics), trees of float32.

    weights: {name: array}, each of `table` there and of its shape
    table: {name: Part}
    """
    trees = {}, {}
    for name, part in table.items():
        *path, last = part.path
        node = trees[last in ('mean', 'var')]
        for key in path:
            node = node.setdefault(key, {})
        node[last] = np.ascontiguousarray(part.turn(np.asarray(weights[name], np.float32)))
    return trees


# ------------------------------------------------------------------------------------------- files
class Official(NamedTuple):
    """One trained model of the official code.

    sizes: d, embedding, words; with a generator gf, nz, nc, residuals, scales, dcgan; with
        discriminators df
    trees: network -> (parameters, running statistics); D: a dictionary by number
    trunk: Inception's trunk, by torchvision's names
    """

    sizes: dict
    vocabulary: Vocabulary
    trees: dict
    trunk: dict


def read_official(paths) -> Official:
    """Read the files of one trained model; their content says which file is which.

    Needed are both encoders and captions.pickle. G and its discriminators are optional; a
    discriminator needs G, and all of them or none are given.

    Raises one DataError, which names each file that is missing and each tensor that is missing,
    unknown or of another shape.
    """
    found = {}
    for path in paths:
        kind, content = identified(path)
        if kind in found:
            raise DataError(
                f'{quoted(found[kind][0])} and {quoted(path)} are both {kind}. Give one of them.'
            )
        found[kind] = path, content
    needed = ['text_encoder', 'image_encoder', 'captions.pickle']
    needed += ['netG'] if set(SIDES) & set(found) else []
    missing = [kind for kind in needed if kind not in found]
    if missing:
        verb = 'is' if len(missing) == 1 else 'are'
        given = ', '.join(map(quoted, paths)) or 'no files'
        raise DataError(
            f'{", ".join(missing)} {verb} missing among {given}. The encoders and captions.pickle '
            'of the training data come with a generator: without the words it trained on it draws '
            'anything.'
        )
    vocabulary = vocabulary_of(*found.pop('captions.pickle'))
    sizes = sizes_of({kind: content for kind, (_, content) in found.items()})
    tables = {kind: table_of(kind, sizes) for kind in found}
    good, wrong = {}, complaints(found, sizes, vocabulary)
    for kind, (path, content) in found.items():
        expected = {name: part.shape for name, part in tables[kind].items()}
        expected |= trunk_shapes() if kind == 'image_encoder' else {}
        try:
            good[kind] = checked(content, expected, f'{kind} of AttnGAN ({quoted(path)})')
        except DataError as error:
            wrong.append(str(error))
    if wrong:
        raise DataError('\n'.join(wrong))
    trees = {kind: turned(good[kind], tables[kind]) for kind in good}
    networks = {'text': trees['text_encoder'], 'image': trees['image_encoder']}
    if 'netG' in good:
        networks['G'] = trees['netG']
    ds = [trees[kind] for kind in SIDES if kind in good]
    if ds:
        networks['D'] = tuple(dict(enumerate(halves)) for halves in zip(*ds))
    trunk = {name: good['image_encoder'][name] for name in trunk_shapes()}
    return Official(sizes, vocabulary, networks, trunk)


def table_of(kind, sizes):
    """{name: Part} of a kind of file."""
    d = sizes['d']
    if kind == 'text_encoder':
        return text_encoder(sizes['words'], d, sizes['embedding'])
    if kind == 'image_encoder':
        return image_heads(d)
    if kind == 'netG':
        names = ('gf', 'nz', 'nc', 'residuals', 'scales', 'dcgan')
        return generator(d, *(sizes[name] for name in names))
    return discriminator(SIDES[kind], d, sizes['df'], not sizes['dcgan'])


def identified(path):
    """Read a file and find what it is -> (kind, content).

    A key of KINDS or SIDES and its tensors, or 'captions.pickle' and its objects. Raises DataError.
    """
    path = require_file(path)
    try:
        with open(path, 'rb') as file:
            head = file.read(len(LEGACY))
    except OSError as error:
        raise DataError(explained(error, path)) from None
    if head != LEGACY and head[:1] in (b'\x80', b'(', b']'):
        return 'captions.pickle', pickles.load(path)
    weights = read_weights(path)
    # of a DataParallel
    if all(name.startswith('module.') for name in weights):
        weights = {name.removeprefix('module.'): x for name, x in weights.items()}
    kinds = [
        kind for kind, start in KINDS.items() if any(name.startswith(start) for name in weights)
    ]
    if not kinds:
        raise DataError(
            f'{quoted(path)} is not a file of AttnGAN: it has {len(weights)} tensors, '
            f'{", ".join(list(weights)[:4])}, ... Give netG, netD0 to netD2, text_encoder, '
            'image_encoder (.pth) and captions.pickle.'
        )
    kind = kinds[0]
    if kind == 'netD':
        sides = {'_s64': 256, '_s32': 128, '_s16': 64}
        layers = (mark for mark in sides if any(mark in name for name in weights))
        kind = f'netD of {sides[next(layers)]} px'
    return kind, weights


def vocabulary_of(path, content):
    """Read the words of captions.pickle -> Vocabulary. Raises DataError."""
    listed = isinstance(content, (list, tuple)) and len(content) >= 4
    words, ids = content[2:4] if listed else ({}, {})
    fits = isinstance(words, dict) and isinstance(ids, dict) and bool(words)
    fits = fits and set(words) == set(range(len(words)))
    fits = fits and all(isinstance(word, str) for word in words.values())
    if not fits or {word: i for i, word in words.items()} != ids:
        raise DataError(
            f'{quoted(path)} is not a captions.pickle of AttnGAN: expected a list of captions, '
            'captions, a dictionary from 0, 1, 2, ... to words and its inverse.'
        )
    # 0 is <end>, the padding
    return Vocabulary([words[i] for i in range(1, len(words))])


def sizes_of(weights):
    """Read widths and numbers of layers off {kind: tensors}.

    The published ones of birds where the tensor is missing; `checked` names that tensor.
    """

    def axis(kind, name, which, published):
        shape = np.shape(weights[kind].get(name, ()))
        return shape[which] if len(shape) > which else published

    sizes = dict(
        d=2 * axis('text_encoder', 'rnn.weight_hh_l0', 1, 128),
        embedding=axis('text_encoder', 'encoder.weight', 1, 300),
        words=axis('text_encoder', 'encoder.weight', 0, 5450),
    )
    if 'netG' in weights:
        names = weights['netG']
        nc = axis('netG', 'ca_net.fc.weight', 0, 400) // 4
        scales = 1 + max(
            [0] + [i for i in (1, 2) if any(name.startswith(f'h_net{i + 1}.') for name in names)]
        )
        sizes |= dict(
            gf=axis('netG', 'h_net1.fc.0.weight', 0, 32 * 512) // 512,
            nc=nc,
            nz=axis('netG', 'h_net1.fc.0.weight', 1, nc + 100) - nc,
            residuals=len(
                {name.split('.')[2] for name in names if name.startswith('h_net2.residual.')}
            ),
            scales=scales,
            dcgan=any(name.startswith('img_net.') for name in names),
        )
    ds = [kind for kind in SIDES if kind in weights]
    return sizes | (dict(df=axis(ds[0], 'img_code_s16.0.weight', 0, 64)) if ds else {})


def complaints(found, sizes, vocabulary):
    """List as sentences where files do not fit together."""
    wrong = []
    if len(vocabulary) != sizes['words']:
        wrong.append(
            f'{found["text_encoder"][0]} reads {sizes["words"]} words with the padding, '
            f'captions.pickle has {len(vocabulary)} (vocabulary {vocabulary.hash[:12]}): they '
            'belong to different trainings. Give the captions.pickle of that training.'
        )
    here = [kind for kind in SIDES if kind in found]
    if here:
        largest = 32 << sizes['scales']
        smallest = largest if sizes['dcgan'] else 0
        wanted = [kind for kind, side in SIDES.items() if smallest <= side <= largest]
        if here != wanted:
            pictures = ', one picture' if sizes['dcgan'] else ''
            wrong.append(
                f'{found["netG"][0]} has {sizes["scales"]} scale(s){pictures} and was trained with '
                f'{", ".join(wanted)}; given are {", ".join(here)}. Give those, or none of them.'
            )
    return wrong
