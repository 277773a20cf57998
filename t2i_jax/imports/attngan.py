"""The files of the official AttnGAN (taoxugit/AttnGAN, PyTorch) as arrays of our networks: names, shapes and layouts of their tensors.

| what | told by | in ours |
|---|---|---|
| netG*.pth, *_AttnGAN2.pth, *_AttnDCGAN2.pth | ca_net | `G` |
| netD0.pth, netD1.pth, netD2.pth | img_code_s16 | `D[i]`, by the side of its pictures: 64, 128, 256 |
| text_encoder*.pth | rnn | `text`, with two biases a gate |
| image_encoder*.pth | emb_features | `image`, trunk 'inception' |
| captions.pickle | a list of captions, captions, id -> word, word -> id | vocabulary.json |

Names of files say nothing. Convolutions lie there as o i h w, dense layers as o i; the first dense layer of G is cut as c h w there, as h w c here; a
discriminator's picture code stands before the sentence there, behind it here; the last layer of a discriminator is a convolution over its whole map.
Gates of the LSTM have the same order in both: i, f, g, o.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from einops import rearrange

from t2i_jax.data.text import Vocabulary
from t2i_jax.encoders import inception
from t2i_jax.encoders.frozen import checked
from t2i_jax.imports.torch import LEGACY, read_weights
from t2i_jax.runtime.errors import DataError
from tfds_builders.foreign import pickles

SIDES = {'netD of 64 px': 64, 'netD of 128 px': 128, 'netD of 256 px': 256}
KINDS = {
    'netG': 'ca_net.',
    'netD': 'img_code_s16.',
    'text_encoder': 'rnn.',
    'image_encoder': 'emb_features.',
}  # kind -> the start of a name


class Part(NamedTuple):
    shape: tuple  # there
    path: tuple  # in the tree of our network
    turn: Callable[[Any], Any]  # the array there -> the one here


# ------------------------------------------------------------------------------------------------------------------- layers
def same(x):
    return x


def conv(name, path, c, d, kernel=3, turn=same):
    """turn: of the turned kernel h w i o."""
    return {
        f'{name}.weight': Part(
            (d, c, kernel, kernel),
            (*path, 'kernel'),
            lambda x: turn(rearrange(x, 'o i h w -> h w i o')),
        )
    }


def dense(name, path, c, d):
    return {
        f'{name}.weight': Part((d, c), (*path, 'kernel'), np.transpose),
        f'{name}.bias': Part((d,), (*path, 'bias'), same),
    }


def norm(name, path, c, turn=same):
    parts = {'weight': 'scale', 'bias': 'bias', 'running_mean': 'mean', 'running_var': 'var'}
    return {f'{name}.{theirs}': Part((c,), (*path, ours), turn) for theirs, ours in parts.items()}


def conv_norm(name, numbers, path, c, d):
    """A convolution and its norm, entries of one list there."""
    return conv(f'{name}.{numbers[0]}', (*path, 'conv'), c, d) | norm(
        f'{name}.{numbers[1]}', (*path, 'norm'), d
    )


# ------------------------------------------------------------------------------------------------------------------ networks
def generator(d, gf, nz, nc, residuals, scales, dcgan):
    """{name: Part} of G_NET, or (`dcgan`) of G_DCGAN."""
    wide = 16 * gf

    def units(x):  # both halves of the gate: c h w -> h w c
        return rearrange(x, '(g c h w) ... -> (g h w c) ...', g=2, h=4, w=4)

    table = dense('ca_net.fc', ('ca', 'layer'), d, 4 * nc)
    table |= {
        'h_net1.fc.0.weight': Part(
            (32 * wide, nc + nz), ('first', 'first', 'kernel'), lambda x: units(x).T
        )
    }
    table |= norm('h_net1.fc.1', ('first', 'norm'), 32 * wide, units)
    for i in range(4):
        table |= conv_norm(
            f'h_net1.upsample{i + 1}', (1, 2), ('first', 'ups', i), wide >> i, wide >> i
        )
    for i in range(scales - 1):
        name, path = f'h_net{i + 2}', ('next', i)
        table |= {
            f'{name}.att.conv_context.weight': Part(
                (gf, d, 1, 1), (*path, 'attention', 'project', 'kernel'), lambda x: x[:, :, 0, 0].T
            )
        }
        for j in range(residuals):
            block, inside = f'{name}.residual.{j}.block', (*path, 'residuals', j)
            table |= conv_norm(block, (0, 1), (*inside, 'keep'), 2 * gf, 4 * gf) | conv_norm(
                block, (3, 4), inside, 2 * gf, 2 * gf
            )
        table |= conv_norm(f'{name}.upsample', (1, 2), (*path, 'up'), 2 * gf, 2 * gf)
    for i, name in enumerate(['img_net'] if dcgan else [f'img_net{i + 1}' for i in range(scales)]):
        table |= conv(f'{name}.img.0', ('to_images', i, 'conv'), gf, 3)
    return table


def discriminator(side, d, df, real):
    """{name: Part} of D_NET64, D_NET128 or D_NET256. real: it has an unconditional head."""
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
        table |= conv(weight, ('trunk', 'convs', i), a * df, b * df, kernel) | norm(
            scale, ('trunk', 'norms', i), b * df
        )

    def sentence_first(x):  # inputs: code, sentence -> sentence, code
        return np.concatenate([x[:, :, 8 * df :], x[:, :, : 8 * df]], 2)

    table |= conv(
        'COND_DNET.jointConv.0', ('matching', 'joint'), 8 * df + d, 8 * df, turn=sentence_first
    )
    table |= norm('COND_DNET.jointConv.1', ('matching', 'norm'), 8 * df)
    for name, head in (('COND_DNET', 'matching'), *([('UNCOND_DNET', 'real')] if real else [])):
        table |= {
            f'{name}.outlogits.0.weight': Part(
                (1, 8 * df, 4, 4),
                (head, 'logit', 'kernel'),
                lambda x: rearrange(x, 'o c h w -> (h w c) o'),
            ),
            f'{name}.outlogits.0.bias': Part((1,), (head, 'logit', 'bias'), same),
        }
    return table


def text_encoder(words, d, embedding):
    """{name: Part} of RNN_ENCODER with an LSTM. words: the padding included."""
    h = d // 2
    table = {'encoder.weight': Part((words, embedding), ('embed', 'embedding'), same)}
    for direction, end in (('forward', ''), ('backward', '_reverse')):
        for name, layer, n in (('ih', 'input', embedding), ('hh', 'hidden', h)):
            table |= {
                f'rnn.weight_{name}_l0{end}': Part(
                    (4 * h, n), (direction, layer, 'kernel'), np.transpose
                ),
                f'rnn.bias_{name}_l0{end}': Part((4 * h,), (direction, layer, 'bias'), same),
            }
    return table


def image_heads(d):
    """{name: Part} of what CNN_ENCODER has beside Inception's trunk."""
    local = {
        'emb_features.weight': Part((d, 768, 1, 1), ('local', 'kernel'), lambda x: x[:, :, 0, 0].T)
    }
    return local | dense('emb_cnn_code', ('whole',), 2048, d)


def trunk_shapes():
    """{name: shape} of the tensors of Inception's trunk."""
    return {
        name: shape
        for name, shape in inception.shapes('torchvision').items()
        if not name.startswith('fc.')
    }


def turned(weights, table):
    """({parameter tree}, {tree of running statistics}) of a network, float32. weights: those of `table`, each there and of its shape."""
    trees = {}, {}
    for name, part in table.items():
        *path, last = part.path
        node = trees[last in ('mean', 'var')]
        for key in path:
            node = node.setdefault(key, {})
        node[last] = np.ascontiguousarray(part.turn(np.asarray(weights[name], np.float32)))
    return trees


# --------------------------------------------------------------------------------------------------------------------- files
class Official(NamedTuple):
    """What a set of official files holds."""

    sizes: dict  # d, embedding; with a generator gf, nz, nc, residuals, scales, dcgan; with discriminators df
    vocabulary: Vocabulary
    trees: dict  # network -> (parameters, running statistics); D: a dictionary by number
    trunk: dict  # Inception's trunk, by torchvision's names


def read_official(paths) -> Official:
    """Reads the files of one trained model, told apart by what is in them. Needed: both encoders and captions.pickle; G and all its discriminators where
    they are. Raises one DataError, which names each file that is missing and each tensor that is missing, unknown or of another shape."""
    found = {}
    for path in paths:
        kind, content = identified(path)
        if kind in found:
            raise DataError(f'{found[kind][0]} and {path} are both {kind}. Give one of them.')
        found[kind] = path, content
    needed = ['text_encoder', 'image_encoder', 'captions.pickle'] + (
        ['netG'] if set(SIDES) & set(found) else []
    )
    missing = [kind for kind in needed if kind not in found]
    if missing:
        raise DataError(
            f'{", ".join(missing)} {"is" if len(missing) == 1 else "are"} missing among {", ".join(map(str, paths)) or "no files"}. The '
            'encoders and captions.pickle of the training data come with a generator: without the words it trained on it draws anything.'
        )
    vocabulary, sizes = (
        vocabulary_of(*found.pop('captions.pickle')),
        sizes_of({kind: content for kind, (_, content) in found.items()}),
    )
    tables = {
        'text_encoder': text_encoder(sizes['words'], sizes['d'], sizes['embedding']),
        'image_encoder': image_heads(sizes['d']),
    }
    if 'netG' in found:
        tables['netG'] = generator(
            *(sizes[name] for name in ('d', 'gf', 'nz', 'nc', 'residuals', 'scales', 'dcgan'))
        )
    for kind in set(SIDES) & set(found):
        tables[kind] = discriminator(SIDES[kind], sizes['d'], sizes['df'], not sizes['dcgan'])
    good, wrong = {}, complaints(found, sizes, vocabulary)
    for kind, (path, content) in found.items():
        expected = {name: part.shape for name, part in tables[kind].items()} | (
            trunk_shapes() if kind == 'image_encoder' else {}
        )
        try:
            good[kind] = checked(content, expected, f'{kind} of AttnGAN ({path})')
        except DataError as error:
            wrong.append(str(error))
    if wrong:
        raise DataError('\n'.join(wrong))
    trees = {kind: turned(good[kind], tables[kind]) for kind in good}
    ds = [kind for kind in SIDES if kind in good]
    D = (
        {'D': tuple({i: trees[kind][half] for i, kind in enumerate(ds)} for half in range(2))}
        if ds
        else {}
    )
    G = {'G': trees['netG']} if 'netG' in good else {}
    trunk = {name: good['image_encoder'][name] for name in trunk_shapes()}
    return Official(
        sizes,
        vocabulary,
        {'text': trees['text_encoder'], 'image': trees['image_encoder'], **G, **D},
        trunk,
    )


def identified(path):
    """(kind, content) of a file: a key of KINDS or SIDES and its tensors, or 'captions.pickle' and what is in it. Raises DataError."""
    try:
        with open(pathlib.Path(path).expanduser(), 'rb') as file:
            head = file.read(len(LEGACY))
    except OSError as error:
        raise DataError(f'Cannot read {path} ({error}). Check the path.') from None
    path = pathlib.Path(path).expanduser()
    if head != LEGACY and head[:1] in (b'\x80', b'(', b']'):
        return 'captions.pickle', pickles.load(path)
    weights = read_weights(path)
    if all(name.startswith('module.') for name in weights):  # of a DataParallel
        weights = {name.removeprefix('module.'): x for name, x in weights.items()}
    kind = next(
        (kind for kind, start in KINDS.items() if any(name.startswith(start) for name in weights)),
        None,
    )
    if kind is None:
        raise DataError(
            f'{path} is no file of AttnGAN: it has {len(weights)} tensors, {", ".join(list(weights)[:4])}, ... Give netG, netD0 to netD2, '
            'text_encoder, image_encoder (.pth) and captions.pickle.'
        )
    if kind == 'netD':
        side = (
            256
            if any('_s64' in name for name in weights)
            else 128
            if any('_s32' in name for name in weights)
            else 64
        )
        kind = f'netD of {side} px'
    return kind, weights


def vocabulary_of(path, content):
    """captions.pickle -> Vocabulary. Raises DataError."""
    fits = (
        isinstance(content, (list, tuple))
        and len(content) >= 4
        and all(isinstance(x, dict) for x in content[2:4])
    )
    words, ids = content[2:4] if fits else ({}, {})
    fits = (
        fits
        and words
        and set(words) == set(range(len(words)))
        and all(isinstance(word, str) for word in words.values())
    )
    if not fits or {word: i for i, word in words.items()} != ids:
        raise DataError(
            f'{path} is no captions.pickle of AttnGAN: expected a list of captions, captions, a dictionary from 0, 1, 2, ... to words and its '
            'inverse.'
        )
    return Vocabulary([words[i] for i in range(1, len(words))])  # 0 is <end>, the padding


def sizes_of(weights):
    """Widths and numbers of layers that {kind: tensors} tell; the published ones of birds where the tensor that tells is missing, which `checked` names."""

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
    """What does not fit between files, as sentences."""
    wrong = []
    if len(vocabulary) != sizes['words']:
        wrong.append(
            f'{found["text_encoder"][0]} reads {sizes["words"]} words with the padding, captions.pickle has {len(vocabulary)} (vocabulary '
            f'{vocabulary.hash[:12]}): they belong to different trainings. Give the captions.pickle of that training.'
        )
    here = [kind for kind in SIDES if kind in found]
    if here:
        wanted = [
            kind
            for kind, side in SIDES.items()
            if side == 32 << sizes['scales']
            or (side < 32 << sizes['scales'] and not sizes['dcgan'])
        ]
        if here != wanted:
            wrong.append(
                f'{found["netG"][0]} has {sizes["scales"]} scale(s){", one picture" if sizes["dcgan"] else ""} and was trained with '
                f'{", ".join(wanted)}; given are {", ".join(here)}. Give those, or none of them.'
            )
    return wrong
