"""Weights that others trained in PyTorch -> a run that samples, evaluates and trains on.

    python -m t2i_jax.imports.run --system=attngan --config=attngan_birds --workdir=runs/official \\
        --file=netG_epoch_600.pth netD0.pth netD1.pth netD2.pth text_encoder200.pth image_encoder200.pth captions.pickle

Nothing in the files is executed, each of their tensors is accounted for, and nothing is written where something does not fit. See
docs/import_weights.md.
"""

import argparse
import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from t2i_jax import config as settings
from t2i_jax import stage as core
from t2i_jax.encoders.damsm_image import InceptionTrunk
from t2i_jax.imports.attngan import read_official
from t2i_jax.run import Run
from t2i_jax.runtime import lock
from t2i_jax.runtime.compiled import start_jax
from t2i_jax.runtime.errors import DataError, RunError

RECORDS = {
    'cub200_captions': 8855,
    'coco2014_captions': 82_783,
}  # of the training splits, as the builders give them


def import_attngan(paths, config, workdir, records=0, mask_mode='original'):
    """Writes the stages of a run from the official files; without a generator the DAMSM alone. -> {stage: step}

    config: an experiment of attngan; widths and sides become those of the files. records: of the training split, 0: the published number. The stages
    count as trained for as long as the config says. mask_mode: see WordAttention; released generators were trained with 'original'.
    Raises DataError for files that do not fit, RunError for a config or workdir that does not.
    """
    if config.system != 'attngan':
        raise RunError(
            f'These are files of attngan, the experiment is one of {config.system}: give --config=experiments/attngan_<data>.py.'
        )
    records = records or RECORDS.get(config.data.name.partition('/')[0])
    if not records:
        raise RunError(
            f'Training goes on only where the number of records is known, and {config.data.name} has no published one: give --records=<of its '
            'training split>.'
        )
    official, workdir = read_official(paths), pathlib.Path(workdir).resolve()
    trunk = workdir / 'damsm' / 'inception.npz'
    fit(config, official.sizes, str(trunk), mask_mode)
    run = Run(config, workdir)
    with lock.Lock(workdir):
        if any(step.name.isdigit() for step in workdir.glob('*/checkpoints/*')):
            raise RunError(f'{workdir} holds a run already. Choose another --workdir.')
        run.claim()
        official.vocabulary.save(workdir / 'vocabulary.json')
        trunk.parent.mkdir(exist_ok=True)
        # torchvision's layout; its last layer is asked for, and read by nobody
        np.savez(
            trunk,
            **official.trunk,
            **{
                'fc.weight': np.zeros((1000, 2048), np.float32),
                'fc.bias': np.zeros(1000, np.float32),
            },
        )
        trees = dict(official.trees)
        parameters, statistics = trees['image']
        trees['image'] = (
            parameters,
            {**statistics, 'trunk': core.split(InceptionTrunk(str(trunk), True)).stats},
        )
        states = {
            name: state_of(run[name], trees, len(official.vocabulary), records)
            for name in ('damsm', *(['gan'] if 'G' in trees else []))
        }
        for name, state in states.items():  # all are whole before the first is saved
            saved, step = run[name].checkpoints(), int(state.step)
            saved.save(
                step,
                state,
                dict(
                    seed=config.seed,
                    batch_size=config.stages[name].batch_size,
                    records=records,
                    total=step,
                ),
                wait=True,
            )
            saved.close()
        return {name: int(state.step) for name, state in states.items()}


def fit(config, sizes, trunk, mask_mode):
    """Sets what the files decide: widths, sides, and the published forms of all that has others."""
    config.stages.damsm.model.update(
        d=sizes['d'],
        embedding=sizes['embedding'],
        two_biases=True,
        trunk='inception',
        weights=trunk,
        resize='corners',
        places=False,
    )
    if 'gf' not in sizes:
        return
    names = ('gf', 'nz', 'nc', 'residuals', 'scales', 'dcgan', 'df')
    config.stages.gan.model.update(
        {name: sizes[name] for name in names if name in sizes},
        attention_count=sizes['scales'] - 1,
        mask_mode=mask_mode,
        d_norm='batch',
        unit_text=False,
    )
    side = 32 << sizes['scales']
    config.data.load_size = config.data.load_size * side // config.data.size
    config.data.size = side
    config.stages.gan.data.scales = (
        () if sizes['dcgan'] else tuple(64 << i for i in range(sizes['scales'] - 1))
    )


def state_of(stage, trees, words, records):
    """The State of a stage at the end of its training; writes its meta.json. trees: network -> (parameters, running statistics); others begin afresh."""
    name, seed = stage.name, stage.config.seed
    stage.write_meta(stage.nominal_meta._replace(nominal=False, vocabulary_size=words))
    steps_per_epoch = max(1, records // stage.block.batch_size)
    prog = stage.program(steps_per_epoch=steps_per_epoch)
    init = stage.fresh_state(prog)
    shapes = jax.eval_shape(init)
    fresh = [network for network in shapes.params if network not in trees]
    params, stats = (
        jax.jit(lambda: (core.pick(init().params, fresh), core.pick(init().stats, fresh)))()
        if fresh
        else ({}, {})
    )
    for network in fresh:
        print(f'Stage {name}: {network} begins untrained, its files were not given.')
    taken = {network: trees[network] for network in shapes.params if network in trees}
    params |= {network: tree for network, (tree, _) in taken.items()}
    stats |= {network: tree for network, (_, tree) in taken.items() if network in shapes.stats}
    state = core.init_state(prog, *jax.tree.map(jnp.asarray, (params, stats)), seed)
    state = state.replace(step=jnp.int32(stage.total_steps(stage.module, steps_per_epoch)))
    different = jax.tree.leaves(
        jax.tree.map(lambda a, b: (a.shape, a.dtype) != (b.shape, b.dtype), shapes, state)
    )  # raises for other names
    if any(different):
        raise RunError(
            f'{sum(different)} arrays of stage {name} are of other shapes than the network of this config.'
        )
    return state


SYSTEMS = {'attngan': import_attngan}


def cli(argv=None):
    """The program; what a person can put right ends in one message and exit status 1."""
    parser = argparse.ArgumentParser(
        prog='python -m t2i_jax.imports.run',
        description='Weights that others trained in PyTorch -> a run.',
    )
    parser.add_argument('--system', required=True, choices=list(SYSTEMS))
    parser.add_argument(
        '--config',
        required=True,
        help='An experiment, <name> or <name>:<variant>: the data and the settings of training.',
    )
    parser.add_argument('--workdir', required=True, help='Folder of the run to be written.')
    parser.add_argument(
        '--file',
        action='append',
        default=[],
        help='A file of the release; more may follow it, or give --file several times.',
    )
    parser.add_argument('files', nargs='*', help='More files.')
    parser.add_argument(
        '--records',
        type=int,
        default=0,
        help='Records of the training split, where the data are not the published ones.',
    )
    parser.add_argument(
        '--mask_mode',
        default='original',
        choices=['original', 'fixed'],
        help='original: as released weights were trained, and a picture depends on the others of its batch; fixed: it does not.',
    )
    asked = parser.parse_intermixed_args(argv)
    logging.set_verbosity(logging.WARNING)
    try:
        start_jax()
        workdir = os.path.expanduser(asked.workdir)
        steps = SYSTEMS[asked.system](
            asked.file + asked.files,
            settings.load(asked.config),
            workdir,
            asked.records,
            asked.mask_mode,
        )
    except (DataError, RunError) as error:
        sys.exit(f'Error: {error}')
    told = ', '.join(f'{name} (step {step:,})' for name, step in steps.items())
    print(
        f'{told} in {workdir}.'
        + (
            f' Pictures: t2i_jax --workdir={workdir} --mode=sample --text="..."'
            if 'gan' in steps
            else f' For another run: --config.init.damsm={workdir}'
        )
    )


if __name__ == '__main__':
    cli()
