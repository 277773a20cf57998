"""What the program makes of a folder of odd inputs: builds, short trainings, evaluations.

    python -m benchmarks.inputs FOLDER --out=benchmarks/results/inputs.md
    python -m benchmarks.inputs FOLDER NAME ... --build

Each folder of FOLDER is one input. What it holds decides what is tried:

two folders of pictures   `--mode=evaluate --images=<first> --reference=<second>`
text files alone          `--mode=sample --text_file=<each>`, of a run that is trained first
anything else             a build as caption_folder with `--on_error=skip`, then a short training

An input passes if all of these end well or with one message: no traceback, no signal, no hang, no
more than MEMORY. A few hostile files follow, which are made here (--hostile=no leaves them out).
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
PICTURES = {'.png', '.jpg', '.jpeg', '.gif', '.tif', '.webp', '.bmp'}
# bytes of resident memory, and seconds
MEMORY, SECONDS = 4e9, 300
TRAIN = (
    '--config=gan_cls_folder:tiny',
    *(f'--config.stages.{stage}.steps=2' for stage in ('text', 'gan')),
    *(f'--config.stages.{stage}.validate_every=2' for stage in ('text', 'gan')),
    '--config.stages.gan.model.ngf=4',
    '--config.stages.gan.model.ndf=4',
    '--config.stages.text.model.encoder.hidden=8',
)
# lines of an output that say what happened, without blanks around, and of those the ones whose
# next line does, too
TELLING = re.compile(
    r'WARNING:absl:|.* are in |\w+: [\d,]+ examples|left out: [1-9]|.*Not measured: |Trained'
)
FOLLOWED = re.compile(r'left out: [1-9]')


class Outcome(NamedTuple):
    """One command: its words, exit status, seconds, largest resident memory, and output."""

    words: list[str]
    status: int | str
    seconds: float
    memory: int
    output: str

    @property
    def problem(self) -> str:
        """What must not happen, '' where it did not."""
        if 'Traceback' in self.output:
            return 'TRACEBACK'
        if self.status not in (0, 1):
            return f'STATUS {self.status}'
        if self.status == 1 and 'Error: ' not in self.output:
            return 'NO MESSAGE'
        return f'MEMORY {self.memory / 1e9:.1f} GB' if self.memory > MEMORY else ''


def attempt(words, environment) -> Outcome:
    """Run a command of the package in a process of its own."""
    with tempfile.TemporaryFile('w+', errors='replace') as output:
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, '-m', *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
        )
        ended, status, used = 0, 0, None
        while not ended and time.monotonic() - began < SECONDS:
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
            time.sleep(0.02)
        if not ended:
            process.kill()
            _, _, used = os.wait4(process.pid, 0)
        status = os.waitstatus_to_exitcode(status) if ended else 'hangs'
        output.seek(0)
        seconds = time.monotonic() - began
        return Outcome(words, status, seconds, used.ru_maxrss * 1024, output.read())


# ------------------------------------------------------------------------------------------- kinds
def commands(folder, scratch, run, build_only):
    """List the commands that are tried on an input."""
    parts = sorted(path for path in folder.iterdir() if path.is_dir())
    if folder.name.startswith('eval_'):
        images, reference = order(parts)
        words = ['t2i_jax', '--mode=evaluate', f'--images={images}', f'--reference={reference}']
        words += [f'--out={scratch / "report"}', '--extractor=random_conv', '--force']
        texts = [f'--captions={path}' for path in sorted(folder.glob('*.txt'))] or [None]
        return [words + ([text] if text else []) for text in texts]
    if not any(path.suffix.lower() in PICTURES for path in folder.rglob('*')):
        sample = ['t2i_jax', f'--workdir={run}', '--mode=sample', '--num=1']
        files = sorted(folder.glob('*.txt'))
        return [[*sample, f'--text_file={path}', f'--out={scratch / path.stem}'] for path in files]
    inside = folder.name == 'data_inside'
    data = (folder if inside else scratch) / 'tfds'
    build = ['tfds_builders.build', 'caption_folder', f'--manual_dir={folder}']
    build += [f'--data_dir={data}', '--on_error=skip']
    train = ['t2i_jax', *TRAIN, f'--workdir={scratch / "run"}']
    train += [f'--config.data.manual_dir={folder}', f'--config.data.dir={data}']
    train += ['--config.data.on_error=skip']
    # what was built into the folder itself must not be read the second time
    builds = [build, build] if inside else [build]
    return builds if build_only else [*builds, train]


def order(parts):
    """Return the folder that is measured and the one that it is compared with."""
    real = [path for path in parts if path.name in ('real', 'flat')]
    return [path for path in parts if path not in real][0], real[0]


def told(outcome) -> str:
    """Shorten an output to what a user needs of it: the message, or how it ended."""
    lines = [line.strip() for line in outcome.output.splitlines()]
    errors = [i for i, line in enumerate(lines) if line.startswith('Error: ')]
    if errors:
        return ' '.join(lines[errors[-1] : errors[-1] + 2])[:300]
    shown = [
        line
        for before, line in zip(['', *lines], lines)
        if TELLING.match(line) or FOLLOWED.match(before)
    ]
    return '; '.join(dict.fromkeys(shown))[:300] or (lines[-1] if lines else '')


def try_input(folder, scratch, run, environment, build_only):
    """Run all that is tried on one input -> its outcomes."""
    place = scratch / folder.name
    place.mkdir(parents=True, exist_ok=True)
    return [attempt(words, environment) for words in commands(folder, place, run, build_only)]


# ----------------------------------------------------------------------------------------- hostile
def huge_png(path, side=60_000):
    """Write a PNG whose head says side x side pixels, and which has none."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))

    head = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    parts = chunk(b'IHDR', head), chunk(b'IDAT', zlib.compress(b'')), chunk(b'IEND', b'')
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(parts))


def hostile(scratch, run):
    """Make files that could eat the machine -> {what: the command that reads it}."""
    folder = scratch / 'hostile'
    real = folder / 'real'
    real.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(real / f'{number}.png')
    sparse = folder / 'sparse.txt'
    with sparse.open('wb') as file:
        file.truncate(1 << 30)
    os.mkfifo(folder / 'fifo.txt')
    fake = folder / 'fake'
    fake.mkdir()
    huge_png(fake / '0.png')
    pictures = folder / 'captioned'
    pictures.mkdir()
    huge_png(pictures / 'huge.png')
    (pictures / 'huge.txt').write_text('a picture without end\n')
    with (pictures / 'sparse.jpg').open('wb') as file:
        file.truncate(1 << 30)
    (pictures / 'sparse.txt').write_text('a file of zeros\n')
    postscript = folder / 'postscript'
    postscript.mkdir()
    (postscript / 'a.jpg').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n')
    (postscript / 'a.txt').write_text('a program\n')
    sample = ['t2i_jax', f'--workdir={run}', '--mode=sample', '--num=1', f'--out={scratch}/out']
    evaluate = ['t2i_jax', '--mode=evaluate', f'--reference={real}', f'--out={scratch}/report']
    evaluate += ['--extractor=random_conv']
    build = ['tfds_builders.build', 'caption_folder', f'--data_dir={scratch}/data']
    return {
        'sentences from /dev/zero': [*sample, '--text_file=/dev/zero'],
        'sentences from a pipe that nobody writes': [*sample, f'--text_file={folder}/fifo.txt'],
        'sentences from a sparse file of 1 GB': [*sample, f'--text_file={sparse}'],
        'captions of pictures from /dev/zero': [
            *evaluate,
            f'--images={real}',
            '--captions=/dev/zero',
        ],
        'a PNG of 60,000 x 60,000 pixels, measured': [*evaluate, f'--images={fake}'],
        'the same and 1 GB of zeros named .jpg, built': [*build, f'--manual_dir={pictures}'],
        'PostScript named .jpg, built': [*build, f'--manual_dir={postscript}'],
    }


# ------------------------------------------------------------------------------------------- table
def page(found, harmful) -> str:
    """Write the tables of inputs and of hostile files."""
    passed = sum(not any(one.problem for one in outcomes) for outcomes in found.values())
    lines = [
        '# Odd inputs',
        '',
        'What becomes of small folders of pictures, captions and texts as people have them: each',
        'is built and trained on for two steps, or measured, or read as sentences. An input',
        'passes if everything works or ends with one message.',
        '',
        '```',
        'python -m benchmarks.inputs FOLDER --out=benchmarks/results/inputs.md',
        '```',
        '',
        f'{passed} of {len(found)} inputs pass.',
        '',
        '| input | passes | what is said |',
        '|---|---|---|',
    ]
    for name, outcomes in found.items():
        problem = next((one.problem for one in outcomes if one.problem), '')
        works = 'works' if all(one.status == 0 for one in outcomes) else 'refused'
        seen = dict.fromkeys(cell(told(one)) for one in outcomes)
        lines.append(f'| {name} | {problem or works} | {"<br>".join(seen)} |')
    if harmful:
        lines += [
            '',
            'Files that could eat a machine:',
            '',
            '| input | passes | seconds | memory, MB | what is said |',
            '|---|---|---|---|---|',
        ]
        for name, one in harmful.items():
            works = one.problem or ('works' if one.status == 0 else 'refused')
            cells = name, works, f'{one.seconds:.1f}', f'{one.memory / 1e6:.0f}', cell(told(one))
            lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def cell(text) -> str:
    """Write a text so that it fits into a cell, without the places of this machine."""
    text = re.sub(r"'?(/[\w.$-]+)+/([\w.$-]+)'?", r'.../\2', text)
    return text.replace('|', '\\|').replace('<', '&lt;')


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=pathlib.Path)
    parser.add_argument('names', nargs='*', help='of inputs; all by default')
    parser.add_argument('--build', action='store_true', help='build, and do not train')
    parser.add_argument('--hostile', choices=('yes', 'no'), default='yes')
    parser.add_argument('--jobs', type=int, default=2, help='processes at once')
    parser.add_argument('--out', type=pathlib.Path, help='the page')
    args = parser.parse_args()
    folders = sorted(path for path in args.folder.resolve().iterdir() if path.is_dir())
    folders = [path for path in folders if not args.names or path.name in args.names]
    with tempfile.TemporaryDirectory(prefix='t2i_inputs') as place:
        scratch = pathlib.Path(place)
        environment = dict(
            os.environ,
            JAX_PLATFORMS='cpu',
            XLA_FLAGS='--xla_backend_optimization_level=0 --xla_cpu_multi_thread_eigen=false',
            JAX_COMPILATION_CACHE_DIR=str(scratch / 'cache'),
            JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
            XDG_CACHE_HOME=str(scratch / 'cache'),
        )
        run = scratch / 'run'
        words = ['t2i_jax', *TRAIN[1:], '--config=gan_cls_shapes:tiny', f'--workdir={run}']
        first = attempt([*words, f'--config.data.dir={scratch / "shapes"}'], environment)
        if first.status:
            sys.exit(f'The run that sentences are given to failed: {first.output[-2000:]}')
        found = {}
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            jobs = [
                pool.submit(try_input, path, scratch, run, environment, args.build)
                for path in folders
            ]
            for path, job in zip(folders, jobs):
                found[path.name] = job.result()
                for one in found[path.name]:
                    print(
                        f'{path.name:<32}{one.problem or one.status!s:<12}{told(one)}', flush=True
                    )
                    if one.problem:
                        print(one.output[-3000:], flush=True)
        harmful = {}
        if args.hostile == 'yes':
            for name, command in hostile(scratch, run).items():
                harmful[name] = attempt(command, environment)
                print(f'{name}: {harmful[name][1:4]} {told(harmful[name])}', flush=True)
    if args.out:
        args.out.write_text(page(found, harmful))
    outcomes = [one for some in found.values() for one in some] + list(harmful.values())
    sys.exit(any(one.problem for one in outcomes))


if __name__ == '__main__':
    main()
