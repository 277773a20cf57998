"""Official PyTorch files of AttnGAN become a run: every tensor in its place, pictures and codes as
PyTorch computes them, training goes on.

The files are written here with the official names and shapes, by the writer of test_imports_torch.
"""

import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import restored
from oracles import load
from test_imports_torch import both, plain

from experiments import attngan_birds
from t2i_jax import config as settings
from t2i_jax.data.text import Vocabulary
from t2i_jax.encoders.pretrained import random_weights
from t2i_jax.imports import __main__ as command
from t2i_jax.imports import attngan
from t2i_jax.imports import run as import_torch
from t2i_jax.run import Run
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.sample import Sampler
from t2i_jax.train import train

WORDS = ['red', 'circle', 'a', 'green', 'square', 'blue', 'the', 'large']
D, EMBEDDING, GF, DF, NZ, NC = 8, 6, 2, 2, 5, 3
TEXTS = ['a large red circle', 'the square', 'a green']


# ---------------------------------------------------------- official names and shapes, written down
def bn(name, c):
    return {f'{name}.{part}': (c,) for part in ('weight', 'bias', 'running_mean', 'running_var')}


def official_g(gf, nz, nc, d, residuals, scales, dcgan=False):
    shapes = {
        'ca_net.fc.weight': (4 * nc, d),
        'ca_net.fc.bias': (4 * nc,),
        'h_net1.fc.0.weight': (512 * gf, nc + nz),
        **bn('h_net1.fc.1', 512 * gf),
    }
    for i, c in enumerate((16, 8, 4, 2), start=1):
        shapes |= {
            f'h_net1.upsample{i}.1.weight': (c * gf, c * gf, 3, 3),
            **bn(f'h_net1.upsample{i}.2', c * gf),
        }
    for i in range(2, scales + 1):
        shapes[f'h_net{i}.att.conv_context.weight'] = (gf, d, 1, 1)
        for j in range(residuals):
            block = f'h_net{i}.residual.{j}.block'
            shapes |= {f'{block}.0.weight': (4 * gf, 2 * gf, 3, 3), **bn(f'{block}.1', 4 * gf)}
            shapes |= {f'{block}.3.weight': (2 * gf, 2 * gf, 3, 3), **bn(f'{block}.4', 2 * gf)}
        shapes |= {
            f'h_net{i}.upsample.1.weight': (2 * gf, 2 * gf, 3, 3),
            **bn(f'h_net{i}.upsample.2', 2 * gf),
        }
    return shapes | {
        f'img_net{"" if dcgan else i}.img.0.weight': (3, gf, 3, 3)
        for i in ([1] if dcgan else range(1, scales + 1))
    }


def official_d(side, df, d, real=True):
    shapes = {'img_code_s16.0.weight': (df, 3, 4, 4)}
    for i, c in ((2, 2), (5, 4), (8, 8)):
        shapes |= {
            f'img_code_s16.{i}.weight': (c * df, c * df // 2, 4, 4),
            **bn(f'img_code_s16.{i + 1}', c * df),
        }
    more = {
        64: (),
        128: (('s32', 16, 8, 4), ('s32_1', 8, 16, 3)),
        256: (('s32', 16, 8, 4), ('s64', 32, 16, 4), ('s64_1', 16, 32, 3), ('s64_2', 8, 16, 3)),
    }
    for name, o, i, k in more[side]:
        shapes |= {
            f'img_code_{name}.0.weight': (o * df, i * df, k, k),
            **bn(f'img_code_{name}.1', o * df),
        }
    for head in ('UNCOND_DNET', 'COND_DNET') if real else ('COND_DNET',):
        shapes |= {
            f'{head}.outlogits.0.weight': (1, 8 * df, 4, 4),
            f'{head}.outlogits.0.bias': (1,),
        }
    return shapes | {
        'COND_DNET.jointConv.0.weight': (8 * df, 8 * df + d, 3, 3),
        **bn('COND_DNET.jointConv.1', 8 * df),
    }


def official_text(words, d, embedding):
    shapes = {'encoder.weight': (words, embedding)}
    for end in ('', '_reverse'):
        shapes |= {
            f'rnn.weight_ih_l0{end}': (2 * d, embedding),
            f'rnn.weight_hh_l0{end}': (2 * d, d // 2),
            f'rnn.bias_ih_l0{end}': (2 * d,),
            f'rnn.bias_hh_l0{end}': (2 * d,),
        }
    return shapes


def official_image(d):
    return {
        **attngan.trunk_shapes(),
        'emb_features.weight': (d, 768, 1, 1),
        'emb_cnn_code.weight': (d, 2048),
        'emb_cnn_code.bias': (d,),
    }


def tensors(shapes, seed):
    return random_weights(shapes, seed)


def write(path, weights, form='new', counted=False):
    """counted: with the counters of batches that PyTorch has since 0.4.1."""
    if counted:
        counters = {
            name.replace('running_var', 'num_batches_tracked'): np.array(7)
            for name in weights
            if name.endswith('running_var')
        }
        weights = weights | counters
    weights = {name: np.ascontiguousarray(x) for name, x in weights.items()}
    entries = {name: plain(str(i), x) for i, (name, x) in enumerate(weights.items())}
    path.write_bytes(both(entries, {str(i): x for i, x in enumerate(weights.values())})[form])
    return str(path)


def write_words(path, words=WORDS, protocol=2):
    by_id = dict(enumerate(['<end>', *words]))
    path.write_bytes(
        pickle.dumps([[[1, 2]], [[3]], by_id, {word: i for i, word in by_id.items()}], protocol)
    )
    return str(path)


def count(shapes):
    return sum(int(np.prod(shape)) for name, shape in shapes.items() if 'running' not in name)


BIRD = dict(gf=32, nz=100, nc=100, d=256, residuals=2, scales=3)


@pytest.mark.parametrize(
    'shapes, table, published',
    [
        (official_g(**BIRD), attngan.generator(**BIRD, dcgan=False), 7_084_592),
        (
            official_g(**BIRD | dict(gf=48, residuals=3)),
            attngan.generator(**BIRD | dict(gf=48, residuals=3), dcgan=False),
            13_811_456,
        ),
        (
            official_g(**BIRD | dict(residuals=0), dcgan=True),
            attngan.generator(**BIRD | dict(residuals=0), dcgan=True),
            6_638_960,
        ),
        *(
            (official_d(side, 64, 256), attngan.discriminator(side, 256, 64, True), n)
            for side, n in ((64, 6_313_730), (128, 19_424_002), (256, 71_858_946))
        ),
        *(
            (official_d(side, 96, 256), attngan.discriminator(side, 256, 96, True), n)
            for side, n in ((64, 13_304_450), (128, 42_800_258), (256, 160_774_274))
        ),
        (official_d(256, 64, 256, False), attngan.discriminator(256, 256, 64, False), 71_850_753),
        (official_text(5450, 256, 300), attngan.text_encoder(5450, 256, 300), 2_075_320),
        (official_text(27_297, 256, 300), attngan.text_encoder(27_297, 256, 300), 8_629_420),
        (official_image(256), attngan.image_heads(256), 22_506_720),
    ],
)
def test_published_sizes(shapes, table, published):
    trunk = attngan.trunk_shapes() if 'emb_features.weight' in table else {}
    assert (
        count(shapes) == published
        and shapes == {name: part.shape for name, part in table.items()} | trunk
    )
    assert len({part.path for part in table.values()}) == len(table)


# -------------------------------------------------------------------------------------------- a run
@pytest.fixture(scope='module')
def official(tmp_path_factory):
    """{kind: (path, tensors)} of a generator of 64 and 128 px, its discriminators and encoders, and
    captions.pickle.
    """
    folder = tmp_path_factory.mktemp('official')
    made = {
        'netG_epoch_600.pth': official_g(GF, NZ, NC, D, 1, 2),
        'netD0.pth': official_d(64, DF, D),
        'netD1.pth': official_d(128, DF, D),
        'text_encoder200.pth': official_text(len(WORDS) + 1, D, EMBEDDING),
        'image_encoder200.pth': official_image(D),
    }
    weights = {name: tensors(shapes, seed) for seed, (name, shapes) in enumerate(made.items())}
    for name in (
        'encoder.weight',
        *(name for name in made['text_encoder200.pth'] if 'bias' in name),
    ):
        weights['text_encoder200.pth'][name] = weights['text_encoder200.pth'][name] * np.float32(2)
    forms = {
        'netD0.pth': ('old', False),
        'netG_epoch_600.pth': ('old', False),
        'netD1.pth': ('new', True),
    }
    files = {
        name: (write(folder / name, w, *forms.get(name, ('new', False))), w)
        for name, w in weights.items()
    }
    return files | {'captions.pickle': (write_words(folder / 'captions.pickle'), None)}


def paths(official, *without, **instead):
    return [
        instead.get(name, path) for name, (path, _) in official.items() if name not in without
    ] + [path for name, path in instead.items() if name not in official]


@pytest.fixture(scope='module')
def config(on_shapes):
    def make():
        config = on_shapes('attngan_shapes')
        config.stages.gan.update(batch_size=2, sample_every=0, validate_every=0)
        config.stages.gan.model.update(damsm_weight=0.0, wrong='shift', leave_out='none')
        return config

    return make


@pytest.fixture(scope='module')
def imported(official, config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('imported') / 'run'
    assert import_torch.import_attngan(paths(official), config(), workdir, records=256) == {
        'damsm': 20,
        'gan': 20,
    }
    return workdir


@pytest.fixture(scope='module')
def states(imported):
    return {
        name: restored(settings.load_older(imported), imported, name)[1]
        for name in ('damsm', 'gan')
    }


def test_the_run_says_what_it_is(imported):
    config = settings.load_older(imported)
    gan, damsm = config.stages.gan.model, config.stages.damsm.model
    expected = dict(
        gf=GF,
        df=DF,
        nz=NZ,
        nc=NC,
        residuals=1,
        scales=2,
        dcgan=False,
        attention_count=1,
        mask_mode='original',
        d_norm='batch',
        unit_text=False,
    )
    assert {name: gan[name] for name in expected} == expected
    assert (damsm.trunk, damsm.two_biases, damsm.d, damsm.embedding, damsm.resize) == (
        'inception',
        True,
        D,
        EMBEDDING,
        'corners',
    )
    assert config.data.size == 128 and tuple(config.stages.gan.data.scales) == (64,)
    assert Vocabulary.load(imported / 'vocabulary.json').words == tuple(WORDS)
    for name in ('damsm', 'gan'):
        meta = Run.open(imported)[name].meta
        assert (meta.vocabulary_size, meta.size, meta.nominal) == (len(WORDS) + 1, 128, False)


def test_tensors_lie_where_they_belong(official, states):
    """Single numbers by the layouts as specified, one for each kind of layer."""
    g, d0, d1, text, image = (
        official[name][1]
        for name in (
            'netG_epoch_600.pth',
            'netD0.pth',
            'netD1.pth',
            'text_encoder200.pth',
            'image_encoder200.pth',
        )
    )
    state, damsm, C = states['gan'], states['damsm'], 16 * GF
    G, stats = state.params['G'], state.stats['G']
    for half, c, h, w in ((0, 3, 1, 2), (1, 30, 3, 0)):
        there, here = half * 16 * C + c * 16 + h * 4 + w, half * 16 * C + (h * 4 + w) * C + c
        assert (G['first']['first']['kernel'][:, here] == g['h_net1.fc.0.weight'][there]).all()
        for ours, theirs in (('scale', 'weight'), ('bias', 'bias')):
            assert G['first']['norm'][ours][here] == g[f'h_net1.fc.1.{theirs}'][there]
        for ours, theirs in (('mean', 'running_mean'), ('var', 'running_var')):
            assert stats['first']['norm'][ours][here] == g[f'h_net1.fc.1.{theirs}'][there]
    assert (
        G['first']['ups'][2]['conv']['kernel'][0, 2, 5, 7]
        == g['h_net1.upsample3.1.weight'][7, 5, 0, 2]
    )
    assert (
        G['next'][0]['attention']['project']['kernel'][4, 1]
        == g['h_net2.att.conv_context.weight'][1, 4, 0, 0]
    )
    assert (
        G['next'][0]['residuals'][0]['conv']['kernel'][1, 0, 2, 3]
        == g['h_net2.residual.0.block.3.weight'][3, 2, 1, 0]
    )
    joint = state.params['D'][1]['matching']['joint']['kernel']
    assert (
        joint[2, 1, 5, 3] == d1['COND_DNET.jointConv.0.weight'][3, 8 * DF + 5, 2, 1]
    )  # the sentence's sixth number
    assert (
        joint[2, 1, D + 9, 3] == d1['COND_DNET.jointConv.0.weight'][3, 9, 2, 1]
    )  # the code's tenth
    assert (
        state.params['D'][0]['real']['logit']['kernel'][(1 * 4 + 3) * 8 * DF + 6, 0]
        == d0['UNCOND_DNET.outlogits.0.weight'][0, 6, 1, 3]
    )
    for stage in (state, damsm):
        assert (
            stage.params['text']['backward']['hidden']['kernel']
            == text['rnn.weight_hh_l0_reverse'].T
        ).all()
        assert (stage.params['text']['forward']['hidden']['bias'] == text['rnn.bias_hh_l0']).all()
        assert (
            stage.params['image']['local']['kernel'] == image['emb_features.weight'][:, :, 0, 0].T
        ).all()
        folded = image['Conv2d_1a_3x3.bn.weight'] / np.sqrt(
            image['Conv2d_1a_3x3.bn.running_var'] + 1e-3
        )
        np.testing.assert_allclose(
            stage.stats['image']['trunk']['net']['layers'][0]['kernel'],
            (image['Conv2d_1a_3x3.conv.weight'] * folded[:, None, None, None]).transpose(
                2, 3, 1, 0
            ),
            rtol=1e-5,
        )
    for average, live in ((state.ema, state.params), (state.ema_stats, state.stats)):
        assert all(
            (a == b).all()
            for a, b in zip(jax.tree.leaves(average['G']), jax.tree.leaves(live['G']), strict=True)
        )


def test_every_number_arrives_once(official, states):
    """The sums of all numbers of a network are those of its file; Inception's trunk is folded."""

    def total(*trees):
        return sum(float(np.abs(np.float64(x)).sum()) for x in jax.tree.leaves(trees))

    state = states['gan']
    for name, trees in (
        ('netG_epoch_600.pth', (state.params['G'], state.stats['G'])),
        ('netD0.pth', (state.params['D'][0], state.stats['D'][0])),
        ('netD1.pth', (state.params['D'][1], state.stats['D'][1])),
        ('text_encoder200.pth', (state.params['text'],)),
    ):
        assert total(*trees) == pytest.approx(total(official[name][1]), rel=1e-9), name
    heads = {
        name: x
        for name, x in official['image_encoder200.pth'][1].items()
        if name.startswith('emb_')
    }
    assert total(state.params['image']) == pytest.approx(total(heads), rel=1e-9)


@pytest.mark.slow
def test_it_samples_and_trains_on(imported, monkeypatch, capsys):
    for name in ('step.SETTLE', 'sample.SHOWN', 'sample.SAMPLES'):
        monkeypatch.setattr(f't2i_jax.{name}', 2)
    before = Sampler.load(imported)
    drawn = before(TEXTS, num=2, attention=True)
    assert (
        before.step == 20
        and drawn['image'].shape == (3, 2, 128, 128, 3)
        and drawn['attention'][0].shape[:4] == (3, 2, 64, 64)
    )
    config = settings.load_older(imported)
    old = restored(config, imported, 'gan')[1]
    config = config.copy_and_resolve_references()
    config.stages.gan.steps = 21
    train(Run(config.lock(), imported), jax.devices()[:1])
    assert (
        'Stage damsm: finished, 20 steps' in (told := capsys.readouterr().out)
        and 'Stage gan: resumed at step 20 of 21' in told
    )
    after = Sampler.load(imported)
    assert after.step == 21 and (after(TEXTS, num=2)['image'] != drawn['image']).any()
    new = restored(config, imported, 'gan')[1]
    for network, moved in (('G', True), ('D', True), ('text', False), ('image', False)):
        pairs = zip(
            jax.tree.leaves(old.params[network]), jax.tree.leaves(new.params[network]), strict=True
        )
        assert any((a != b).any() for a, b in pairs) == moved, network


# ------------------------------------------------------------- what PyTorch computes from the files
def torch_g(w, z, eps, sentence, words, there):
    """The official generator in evaluation mode.

    There: b q t, which words a pixel looks at. -> (pictures of either side b c h w, attention b h w
    t)
    """
    import torch
    import torch.nn.functional as F

    def norm(x, name):
        return F.batch_norm(
            x,
            *(w[f'{name}.{part}'] for part in ('running_mean', 'running_var', 'weight', 'bias')),
            eps=1e-5,
        )

    def glu(x):
        return F.glu(x, 1)

    def up(x, name):
        return glu(
            norm(
                F.conv2d(
                    F.interpolate(x, scale_factor=2, mode='nearest'),
                    w[f'{name}.1.weight'],
                    padding=1,
                ),
                f'{name}.2',
            )
        )

    def picture(x, name):
        return torch.tanh(F.conv2d(x, w[f'{name}.img.0.weight'], padding=1))

    mu, logvar = glu(F.linear(sentence, w['ca_net.fc.weight'], w['ca_net.fc.bias'])).chunk(2, 1)
    c = mu + torch.exp(logvar / 2) * eps
    h = glu(norm(F.linear(torch.cat([c, z], 1), w['h_net1.fc.0.weight']), 'h_net1.fc.1')).view(
        len(z), 16 * GF, 4, 4
    )
    for i in range(1, 5):
        h = up(h, f'h_net1.upsample{i}')
    first = picture(h, 'img_net1')
    shown = F.conv2d(words[..., None], w['h_net2.att.conv_context.weight'])[..., 0]  # b c t
    scores = torch.einsum('bcq,bct->bqt', h.flatten(2), shown).masked_fill(~there, -torch.inf)
    beta = scores.softmax(2)
    context = torch.einsum('bqt,bct->bcq', beta, shown).view_as(h)
    x = torch.cat([h, context], 1)
    name = 'h_net2.residual.0.block'
    y = glu(norm(F.conv2d(x, w[f'{name}.0.weight'], padding=1), f'{name}.1'))
    x = x + norm(F.conv2d(y, w[f'{name}.3.weight'], padding=1), f'{name}.4')
    return first, picture(up(x, 'h_net2.upsample'), 'img_net2'), beta.unflatten(1, h.shape[2:])


def torch_d(w, picture, sentence):
    """The official discriminator of 128 px in evaluation mode, its two logits."""
    import torch
    import torch.nn.functional as F

    def block(x, weight, norm, stride, kernel):
        x = F.conv2d(x, w[f'{weight}.weight'], stride=stride, padding=1)
        assert w[f'{weight}.weight'].shape[-1] == kernel
        return F.leaky_relu(
            F.batch_norm(
                x,
                *(
                    w[f'{norm}.{part}']
                    for part in ('running_mean', 'running_var', 'weight', 'bias')
                ),
                eps=1e-5,
            ),
            0.2,
        )

    x = F.leaky_relu(F.conv2d(picture, w['img_code_s16.0.weight'], stride=2, padding=1), 0.2)
    for i in (2, 5, 8):
        x = block(x, f'img_code_s16.{i}', f'img_code_s16.{i + 1}', 2, 4)
    x = block(
        block(x, 'img_code_s32.0', 'img_code_s32.1', 2, 4),
        'img_code_s32_1.0',
        'img_code_s32_1.1',
        1,
        3,
    )
    joint = block(
        torch.cat([x, sentence[..., None, None].expand(-1, -1, 4, 4)], 1),
        'COND_DNET.jointConv.0',
        'COND_DNET.jointConv.1',
        1,
        3,
    )
    return [
        F.conv2d(
            y, w[f'{head}.outlogits.0.weight'], w[f'{head}.outlogits.0.bias'], stride=4
        ).flatten()
        for y, head in ((joint, 'COND_DNET'), (x, 'UNCOND_DNET'))
    ]


def test_torch_computes_the_same(official, imported, states):
    torch = pytest.importorskip('torch')
    F, vision = torch.nn.functional, load.torchvision()
    g, _, d1, text, image = (
        {name: torch.from_numpy(x) for name, x in official[name][1].items()}
        for name in (
            'netG_epoch_600.pth',
            'netD0.pth',
            'netD1.pth',
            'text_encoder200.pth',
            'image_encoder200.pth',
        )
    )
    sampler, state, n = Sampler.load(imported, step=20), states['gan'], len(TEXTS)
    vocabulary, length = sampler.vocabulary, sampler.meta.length
    ids, lengths = (np.stack(x) for x in zip(*(vocabulary.encode(t, length) for t in TEXTS)))
    stage = nnx.merge(sampler.prog.graph, state.params, state.stats)
    batch, noise = (
        {'tokens': jnp.asarray(ids), 'length': jnp.asarray(lengths)},
        stage.noise(jax.random.key(3), n),
    )
    with torch.no_grad():
        lstm = torch.nn.LSTM(EMBEDDING, D // 2, batch_first=True, bidirectional=True)
        lstm.load_state_dict(
            {name.removeprefix('rnn.'): x for name, x in text.items() if name.startswith('rnn.')}
        )
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            text['encoder.weight'][torch.from_numpy(ids).long()],
            torch.from_numpy(lengths),
            batch_first=True,
            enforce_sorted=False,
        )
        out, (last, _) = lstm(packed)
        words = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=length)[
            0
        ]
        sentence = last.transpose(0, 1).flatten(1)
        encoded = stage.encode(batch)
        np.testing.assert_allclose(encoded.words, words, atol=1e-5)
        np.testing.assert_allclose(encoded.sentence, sentence, atol=1e-5)

        there = torch.arange(length) < torch.from_numpy(lengths)[:, None]
        tiled = there.repeat(64 * 64, 1).view(n, 64 * 64, length)  # the official misalignment
        z, eps = (torch.from_numpy(np.array(noise[name])) for name in ('z', 'eps'))
        first, second, beta = torch_g(g, z, eps, sentence, words.transpose(1, 2), tiled)
        drawn = stage.sample(batch, noise)
        for ours, theirs in zip(drawn['images'], (first, second), strict=True):
            assert theirs.std() > 0.05
            np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1), atol=1e-3)
        np.testing.assert_allclose(drawn['attention'][0], beta, atol=1e-3)

        logits = torch_d(d1, second, sentence)
        code = stage.D[1].trunk(jnp.asarray(second.permute(0, 2, 3, 1).numpy()), train=False)
        told = (
            stage.D[1].matching(code, jnp.asarray(sentence.numpy()), train=False),
            stage.D[1].real(code, train=False),
        )
        for ours, theirs in zip(told, logits, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)

        net = vision.models.inception_v3(
            weights=None, aux_logits=False, transform_input=False, init_weights=False
        ).eval()
        net.load_state_dict(
            {name: x for name, x in image.items() if not name.startswith('emb_')}, strict=False
        )
        maps = {}
        for layer in ('Mixed_6e', 'Mixed_7c'):
            getattr(net, layer).register_forward_hook(
                lambda _, __, value, layer=layer: maps.update({layer: value})
            )
        picture = torch.from_numpy(
            np.random.default_rng(0).uniform(-1, 1, (1, 3, 128, 128)).astype(np.float32)
        )
        net(F.interpolate(picture, (299, 299), mode='bilinear', align_corners=True))
        regions = (
            F.conv2d(maps['Mixed_6e'], image['emb_features.weight']).flatten(2).transpose(1, 2)
        )
        whole = F.linear(
            maps['Mixed_7c'].mean((2, 3)), image['emb_cnn_code.weight'], image['emb_cnn_code.bias']
        )
    ours = stage.image(jnp.asarray(picture.permute(0, 2, 3, 1).numpy()), train=False)
    for a, b in zip(ours, (regions, whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3 * float(b.abs().max()))


@pytest.mark.slow
# ----------------------------------------------------------------------------------- parts of a set
def test_without_discriminators_and_without_a_generator(official, config, tmp_path, capsys):
    single = tensors(official_g(GF, NZ, NC, D, 0, 1), 5)
    g = write(
        tmp_path / 'netG.pth', {f'module.{name}': x for name, x in single.items()}
    )  # of a DataParallel
    steps = import_torch.import_attngan(
        [*paths(official, 'netG_epoch_600.pth', 'netD0.pth', 'netD1.pth'), g],
        config(),
        tmp_path / 'g',
        256,
        'fixed',
    )
    assert (
        set(steps) == {'damsm', 'gan'}
        and 'Stage gan: D starts untrained, its files were not given.' in capsys.readouterr().out
    )
    made = settings.load_older(tmp_path / 'g')
    assert (made.data.size, made.stages.gan.model.scales, made.stages.gan.model.mask_mode) == (
        64,
        1,
        'fixed',
    ) and not made.stages.gan.data.scales
    state = restored(made, tmp_path / 'g', 'gan')[1]
    assert (
        state.ema['G']['to_images'][0]['conv']['kernel']
        == single['img_net1.img.0.weight'].transpose(2, 3, 1, 0)
    ).all()
    with pytest.raises(RunError, match='g holds a run already'):
        import_torch.import_attngan(paths(official), config(), tmp_path / 'g', 256)
    moved = (tmp_path / 'g').rename(
        tmp_path / 'moved'
    )  # Inception's file is not where the config says
    assert Sampler.load(moved)(TEXTS, num=1)['image'].shape == (3, 1, 64, 64, 3)

    encoders = paths(official, 'netG_epoch_600.pth', 'netD0.pth', 'netD1.pth')
    assert import_torch.import_attngan(encoders, config(), tmp_path / 'e', 256) == {'damsm': 20}
    other = config()
    other.init.damsm = str(tmp_path / 'e')
    run = Run(other, tmp_path / 'new')
    run.vocabulary = Run.open(tmp_path / 'e').vocabulary
    params, stats = run['gan'].loaded_weights(jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    assert (
        params['text']['embed']['embedding'] == official['text_encoder200.pth'][1]['encoder.weight']
    ).all() and 'trunk' in stats['image']


def test_a_generator_of_one_picture_has_one_discriminator(official, tmp_path):
    g = write(
        tmp_path / 'bird_AttnDCGAN2.pth', tensors(official_g(GF, NZ, NC, D, 0, 2, dcgan=True), 1)
    )
    d = write(tmp_path / 'netD0.pth', tensors(official_d(128, DF, D, real=False), 2))
    encoders = paths(official, 'netG_epoch_600.pth', 'netD0.pth', 'netD1.pth')
    found = attngan.read_official([*encoders, g, d])
    assert (
        found.sizes['dcgan']
        and found.sizes['scales'] == 2
        and list(found.trees['D'][0]) == [0]
        and set(found.trees['D'][0][0]) == {'trunk', 'matching'}
    )
    with pytest.raises(DataError, match='unknown .UNCOND_DNET.outlogits.0.weight'):
        attngan.read_official([*encoders, g, official['netD1.pth'][0]])
    with pytest.raises(
        DataError,
        match='2 scale.s., one picture and was trained with netD of 128 px; given are netD of '
        '64 px',
    ):
        attngan.read_official([*encoders, g, official['netD0.pth'][0]])


# ---------------------------------------------------------------------------------------- bad input
def test_each_tensor_that_does_not_fit_is_named_in_one_error(official, config, tmp_path):
    g, text = dict(official['netG_epoch_600.pth'][1]), dict(official['text_encoder200.pth'][1])
    del g['h_net2.att.conv_context.weight'], g['ca_net.fc.weight']
    g |= {
        'h_net2.sent_att.weight': np.ones(3, np.float32),
        'h_net1.upsample2.1.weight': np.ones((4, 4, 3, 3), np.float32),
    }
    text['rnn.weight_ih_l0_reverse'] = np.ones(
        (3 * D // 2, EMBEDDING), np.float32
    )  # a GRU has three gates
    text['rnn.bias_hh_l0'] = np.full(2 * D, np.nan, np.float32)
    bad = {
        'netG_epoch_600.pth': write(tmp_path / 'g.pth', g),
        'text_encoder200.pth': write(tmp_path / 't.pth', text),
    }
    with pytest.raises(DataError) as error:
        import_torch.import_attngan(paths(official, **bad), config(), tmp_path / 'run', 256)
    for part in (
        'netG of AttnGAN',
        'g.pth',
        r'missing \(ca_net.fc.weight, h_net2.att.conv_context.weight\)',
        r'1 unknown \(h_net2.sent_att.weight\)',
        r'h_net1.upsample2.1.weight \(4, 4, 3, 3\) instead of \(16, 16, 3, 3\)',
        'text_encoder of AttnGAN',
        't.pth',
        r'rnn.weight_ih_l0_reverse \(12, 6\) instead of \(16, 6\)',
        r'1 not finite \(rnn.bias_hh_l0\)',
    ):
        assert re.search(part, str(error.value)), part
    assert not (tmp_path / 'run').exists()


def test_encoders_of_another_width_are_refused(official, tmp_path):
    other = write(
        tmp_path / 'text.pth', tensors(official_text(len(WORDS) + 1, 2 * D, EMBEDDING), 0)
    )
    with pytest.raises(DataError) as error:
        attngan.read_official(paths(official, **{'text_encoder200.pth': other}))
    for part in (
        r'emb_features.weight \(8, 768, 1, 1\) instead of \(16, 768, 1, 1\)',
        r'h_net2.att.conv_context.weight \(2, 8, 1, 1\) instead of \(2, 16, 1, 1\)',
        r'COND_DNET.jointConv.0.weight \(16, 24, 3, 3\) instead of \(16, 32, 3, 3\)',
    ):
        assert re.search(part, str(error.value)), part


def test_another_vocabulary_is_refused_by_its_hash(official, tmp_path):
    words = write_words(tmp_path / 'captions.pickle', WORDS[:-1], protocol=4)
    with pytest.raises(
        DataError,
        match='reads 9 words with the padding, captions.pickle has 8 .vocabulary '
        f'{Vocabulary(WORDS[:-1]).hash[:12]}',
    ):
        attngan.read_official(paths(official, **{'captions.pickle': words}))


def test_files_that_are_missing_double_or_of_something_else(official, config, tmp_path):
    def refused(message, *without, also=(), **instead):
        with pytest.raises(DataError, match=message):
            attngan.read_official([*paths(official, *without, **instead), *also])

    refused(
        '^text_encoder, captions.pickle are missing among', 'text_encoder200.pth', 'captions.pickle'
    )
    refused('^netG is missing among', 'netG_epoch_600.pth')
    refused(
        'was trained with netD of 64 px, netD of 128 px; given are netD of 128 px. Give '
        'those, or none',
        'netD0.pth',
    )
    refused('netD0.pth are both netD of 64 px', also=[official['netD0.pth'][0]])
    refused('absent.pth cannot be used: No such file', also=[tmp_path / 'absent.pth'])
    other = write(tmp_path / 'other.pth', {'features.0.weight': np.ones((2, 2), np.float32)})
    refused('other.pth is not a file of AttnGAN: it has 1 tensors, features.0.weight', also=[other])
    (tmp_path / 'page.pth').write_text('<html>Quota exceeded</html>')
    refused('page.pth is not a weights file', also=[tmp_path / 'page.pth'])
    for content in (
        [[], []],
        {'a': 1},
        [[], [], {0: '<end>', 2: 'a'}, {'<end>': 0, 'a': 2}],
        [[], [], {0: '<end>', 1: 'a'}, {'<end>': 0, 'a': 2}],
    ):
        (tmp_path / 'captions.pickle').write_bytes(pickle.dumps(content, 2))
        refused(
            'is not a captions.pickle of AttnGAN',
            **{'captions.pickle': str(tmp_path / 'captions.pickle')},
        )
    (tmp_path / 'captions.pickle').write_bytes(b'cposix\nsystem\n(S"true"\ntR.')
    refused('is not a weights file', **{'captions.pickle': str(tmp_path / 'captions.pickle')})
    (tmp_path / 'captions.pickle').write_bytes(b'\x80\x02cposix\nsystem\n(S"true"\ntR.')
    refused(
        'asks for posix.system, which was refused',
        **{'captions.pickle': str(tmp_path / 'captions.pickle')},
    )
    with pytest.raises(RunError, match='no published one: give --records'):
        import_torch.import_attngan(paths(official), config(), tmp_path / 'run')


def test_the_command_line(official, tmp_path, capsys):
    known = ['--system=attngan', f'--workdir={tmp_path / "run"}']
    for args, message in (
        (
            ['--config=experiments/absent.py', '--file=x'],
            "There is no experiment 'experiments/absent.py'",
        ),
        (['--config=experiments/gan_cls_birds.py', '--file=x'], 'the experiment is one of gan_cls'),
        (
            [
                '--config=experiments/attngan_birds.py',
                f'--file={tmp_path / "a.pth"}',
                str(tmp_path / 'b.pth'),
            ],
            '.*a.pth cannot be used: No such file',
        ),
        (
            ['--config=experiments/attngan_birds.py'],
            'text_encoder, image_encoder, captions.pickle are missing among no files',
        ),
    ):
        with pytest.raises(SystemExit, match=f'Error: .*{message}'):
            command.cli(known + args)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            import_torch,
            'import_attngan',
            lambda *args: seen.append(args) or {'damsm': 36_800, 'gan': 265_200},
        )
        command.cli(
            [
                *known,
                '--config=experiments/attngan_birds.py',
                '--file=a.pth',
                'b.pth',
                '--file',
                'c.pth',
                '--records=5',
                '--mask_mode=fixed',
            ]
        )
    assert seen[0][0] == ['a.pth', 'c.pth', 'b.pth'] and seen[0][2:] == (
        str(tmp_path / 'run'),
        5,
        'fixed',
    )
    assert seen[0][1].to_dict() == attngan_birds.get_config().to_dict()
    assert (
        'damsm (step 36,800), gan (step 265,200) in' in (told := capsys.readouterr().out)
        and '--mode=sample' in told
    )
