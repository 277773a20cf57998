"""Images a second of the loader alone: no step, no augmentation.

    python -m benchmarks.data --name=coco2014_captions --manual_dir=<folder> \\
        --sizes=64,256 --workers=0,2

Each cache mode runs in a process of its own, `--seconds` long after a warm-up, `--repeats` times;
the median counts. A batch has images, wrong images and captions, as GAN-CLS reads them; images of
both are counted. For 'device' the rows are gathered on the device, too.
"""

import argparse
import datetime
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

# more steps than are ever measured
ENDLESS = 1 << 40


def measure(args, size, cache, workers):
    """Measure one cache mode -> {'rate': images a second, 'memory': peak in bytes}.

    The memory is that of this process and its workers.
    """
    import jax

    from t2i_jax import config as settings
    from t2i_jax.data.feed import gather, host_batches
    from t2i_jax.data.plan import Plan
    from t2i_jax.data.tables import Split, device_tables

    needs = ('image', 'wrong_image', 'chars')
    data = settings.defaults(settings.DATA) | dict(
        name=args.name,
        manual_dir=args.manual_dir,
        dir=args.data_dir,
        cache=cache,
        size=size,
        load_size=size * 76 // 64,
        on_error='skip' if args.manual_dir else 'refuse',
    )
    split = Split(data, args.split, needs)
    plan = Plan(split, args.batch, 0, needs)
    table = {}
    if cache == 'device':
        (table,) = device_tables([split], jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    rows = jax.jit(lambda table, rows: gather(table, rows, split.wrong_fields))
    stream, rates = host_batches(split, plan, 0, ENDLESS, cache, workers), []
    # the first one warms up
    for repeat in range(args.repeats + 1):
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < args.seconds:
            batch = next(stream)
            jax.block_until_ready(rows(table, batch) if cache == 'device' else None)
            count += 2 * args.batch
        rates += [count / (time.perf_counter() - start)] if repeat else []
    stream.close()
    own, children = (
        resource.getrusage(who).ru_maxrss * 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    # the largest of the workers stands for each
    return {'rate': statistics.median(rates), 'memory': own + workers * children}


def in_a_process(size, cache, workers):
    """Measure one cache mode in a process of its own. Ends the program where that fails."""
    only = f'--only={size},{cache},{workers}'
    command = [sys.executable, '-m', 'benchmarks.data', *sys.argv[1:], only]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith('result ')]
    if not lines:
        sys.exit(done.stderr)
    return json.loads(lines[0].removeprefix('result '))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--name', default='shape_scenes/single_256')
    parser.add_argument('--split', default='train')
    parser.add_argument('--manual_dir', default='')
    parser.add_argument('--data_dir', default='')
    parser.add_argument('--sizes', default='64,256', help='pixels; the canvas is 76/64 of it')
    parser.add_argument('--workers', default='0,2', help="processes for cache='none'; 0: threads")
    parser.add_argument('--batch', type=int, default=64)
    parser.add_argument('--seconds', type=float, default=4)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--out', help='JSON file for the numbers')
    parser.add_argument('--only', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        size, cache, workers = args.only.split(',')
        print('result', json.dumps(measure(args, int(size), cache, int(workers))))
        return
    report = dict(
        command=' '.join(['python -m benchmarks.data', *sys.argv[1:]]),
        date=str(datetime.date.today()),
        cores=os.cpu_count(),
        rows=[],
    )
    print(f'{args.name}, {args.split}, batch {args.batch}')
    print(
        f'{"size":>5} {"cache":<8} {"workers":>8} {"images/s":>12} {"to none":>8} '
        f'{"peak memory":>12}'
    )
    modes = [('none', int(n)) for n in args.workers.split(',')] + [('host', 0), ('device', 0)]
    for size in map(int, args.sizes.split(',')):
        # the best rate without a cache
        slow = 0
        for cache, workers in modes:
            found = in_a_process(size, cache, workers)
            rate, memory = found['rate'], found['memory']
            row = dict(size=size, cache=cache, workers=workers, images_per_s=rate, memory=memory)
            report['rows'].append(row)
            slow = max(slow, rate) if cache == 'none' else slow
            print(
                f'{size:>5} {cache:<8} {workers if cache == "none" else "-":>8} {rate:>12,.0f} '
                f'{rate / slow:>8.1f} {memory / 1e9:>9.2f} GB',
                flush=True,
            )
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    main()
