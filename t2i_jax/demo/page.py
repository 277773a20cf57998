"""The page: offers and results as a web page, made with gradio.

serve(['runs/quick', 'example:shapes'], port=7860)

Two scripts show one frame of a film at a time (film.js) and draw boxes on a canvas (boxes.js).
"""

import functools
import json
import pathlib
import socket
from collections.abc import Callable, Sequence

from t2i_jax import config as settings
from t2i_jax.demo import offers, results
from t2i_jax.demo.markup import markup
from t2i_jax.demo.offers import INPUTS, Model, Tab
from t2i_jax.draw.boxes import COLOURS, label_name
from t2i_jax.run import Path
from t2i_jax.runtime.errors import RunError, reason, short

HERE = pathlib.Path(__file__).parent
# of a new page: pictures, seed, other seed
NUM, SEED, TO = 4, 0, 1


# -------------------------------------------------------------------------------------------- page
@functools.cache
def gradio():
    """Import gradio. Raises RunError where it is not installed."""
    try:
        import gradio
    except ImportError:
        raise RunError(
            "--mode=demo needs the package gradio: pip install 't2i_jax[demo]'."
        ) from None
    return gradio


def build(models: Sequence[Model], examples: Sequence[str] = ()):
    """Return the page of these runs, a gradio.Blocks. examples: sentences."""
    gr = gradio()
    with gr.Blocks(title='t2i_jax', analytics_enabled=False) as page:
        heading = gr.Markdown(head_of(models))
        for name, tab in offers.tabs_of(models).items():
            with gr.Tab(tab.title, id=name, elem_id=f'tab-{name}'), gr.Row():
                MAKERS.get(name, conditions_tab)(name, tab, examples)

        def renewed():
            results.refresh(models)
            return head_of(models)

        # a run that is trained on has newer weights
        page.load(renewed, outputs=heading, show_progress='hidden', api_visibility='private')
    return page


def head_of(models) -> str:
    return '## t2i_jax\n' + '\n'.join(f'- {model.title}' for model in models)


def numbers_of(num=True):
    """Return the fields of number and seed."""
    gr = gradio()
    found = [gr.Slider(1, results.MOST, NUM, step=1, label='Pictures')] if num else []
    return [*found, seed_field('Seed', SEED)]


def seed_field(label, value):
    gr = gradio()
    return gr.Number(value, label=label, precision=0, minimum=0, maximum=settings.SEEDS)


def result():
    """Return the place of results, which follows slider and words."""
    return gradio().HTML('', js_on_load=script('film.js'), apply_default_css=False)


@functools.cache
def script(name):
    return (HERE / name).read_text(encoding='utf-8')


def text_field(name, number=''):
    field = INPUTS[name]
    return gradio().Textbox(
        label=f'{field.label} {number}'.strip(), placeholder=field.hint, lines=field.lines
    )


def shown_examples(examples, fields):
    """Offer captions for one or two fields of sentences."""
    if examples:
        rows = [[*examples[i : i + len(fields)]] for i in range(0, len(examples), len(fields))]
        rows = [row for row in rows if len(row) == len(fields)]
        gradio().Examples(rows, fields, label='Held-out captions')


def wire(name, function: Callable, fields, outputs, sources=()):
    """Call a function on the button, on Enter in a sentence, and when a source changes."""
    gr = gradio()
    button = gr.Button('Draw', variant='primary')
    triggers = [button.click]
    triggers += [one.submit for one in fields if isinstance(one, gr.Textbox) and one.lines == 1]
    triggers += [one.input for one in sources]
    gr.on(
        triggers,
        function,
        fields,
        outputs,
        api_name=name,
        trigger_mode='always_last',
        show_progress='minimal',
    )


def conditions_tab(name, tab: Tab, examples):
    """Lay out a tab that draws from conditions."""
    gr = gradio()
    with gr.Column(scale=1, min_width=300):
        own = {kind: condition_field(kind, tab) for kind in tab.reads}
        numbers = numbers_of()
        actions = gr.Column()
        if 'sentence' in own:
            shown_examples(examples, [own['sentence']])
    with gr.Column(scale=3):
        shown = result()
    canvas = own.get('layout')

    def drawn(num, seed, *values):
        given = dict(zip(own, values))
        found = results.draw(tab.models, given, num, seed)
        out = markup(found, title_of(given))
        if canvas is None:
            return out
        # boxes that a run has made can be dragged
        made = next((one.objects for one in found if one.layouts is not None), None)
        return out, gr.skip() if given['layout'] or not made else json.dumps(made)

    outputs = shown if canvas is None else [shown, canvas]
    with actions:
        wire(name, drawn, [*numbers, *own.values()], outputs, [canvas] if canvas else [])


def title_of(given) -> str:
    return next((x for x in (given.get('sentence'), given.get('labels')) if x), '')


def condition_field(name, tab: Tab):
    """Return the field of one kind of condition."""
    gr, field = gradio(), INPUTS[name]
    if field.kind == 'text':
        return text_field(name)
    if field.kind == 'picture':
        return gr.Image(label=field.label, type='numpy', image_mode='RGB')
    metas = [model.sampler.meta for model in tab.models]
    names = dict.fromkeys(
        label_name(i, meta.object_names) for meta in metas for i in range(meta.object_classes)
    )
    return gr.HTML(
        '',
        html_template=script('boxes.html'),
        js_on_load=script('boxes.js'),
        apply_default_css=False,
        names=[*names],
        colours=['#{:02x}{:02x}{:02x}'.format(*one) for one in COLOURS],
        elem_classes='t2i-boxes',
    )


def between_tab(name, tab: Tab, examples):
    gr = gradio()
    with gr.Column(scale=1, min_width=300):
        fields = [text_field('sentence', 'A'), text_field('sentence', 'B'), *numbers_of()]
        actions = gr.Column()
        shown_examples(examples, fields[:2])
    with gr.Column(scale=3):
        shown = result()

    def drawn(first, second, num, seed):
        found = results.between(tab.models, first, second, num, seed)
        return markup(found, f'{short(first, 36)} - {short(second, 36)}')

    with actions:
        wire(name, drawn, fields, shown)


def seeds_tab(name, tab: Tab, examples):
    gr = gradio()
    with gr.Column(scale=1, min_width=300):
        # systems that draw from noise alone read no sentence
        text = [text_field('sentence')] if 'sentence' in tab.reads else []
        fields = [*numbers_of(), seed_field('Other seed', TO), *text]
        actions = gr.Column()
        if text:
            shown_examples(examples, text)
    with gr.Column(scale=3):
        shown = result()

    def drawn(num, seed, to, sentence=None):
        return markup(results.between_seeds(tab.models, sentence, num, seed, to), sentence or '')

    with actions:
        wire(name, drawn, fields, shown)


def words_tab(name, tab: Tab, examples):
    gr = gradio()
    with gr.Column(scale=1, min_width=300):
        fields = [text_field('sentence'), *numbers_of(num=False)]
        actions = gr.Column()
        gr.Markdown(
            'Click a word: bright is where pixels look at it, relative to the word and the '
            'place that are looked at most.'
        )
        shown_examples(examples, fields[:1])
    with gr.Column(scale=3):
        shown = result()

    def drawn(sentence, seed):
        return markup(results.look(tab.models, sentence, seed), sentence, by_words=True)

    with actions:
        wire(name, drawn, fields, shown)


def explore_tab(name, tab: Tab, examples):
    gr = gradio()
    shows = {}
    for model in tab.models:
        shows = offers.explorations(model.module) | shows
    with gr.Column(scale=1, min_width=300):
        what = gr.Dropdown(
            [*shows], label='What', info='; '.join(f'{k}: {x}' for k, x in shows.items())
        )
        texts = gr.Textbox(label='Sentences', placeholder='one a line', lines=4)
        numbers = numbers_of()
        actions = gr.Column()
    with gr.Column(scale=3):
        shown = result()

    def drawn(what, text, num, seed):
        return markup(results.explore(tab.models, what, text, num, seed))

    with actions:
        wire(name, drawn, [what, texts, *numbers], shown)


MAKERS = {
    'between': between_tab,
    'z': seeds_tab,
    'words': words_tab,
    'explore': explore_tab,
}


# ------------------------------------------------------------------------------------------ server
def require_free(host, port) -> None:
    """Raise RunError where the page cannot be served at this address."""
    try:
        kind = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(kind, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((host, port))
    except OSError as error:
        raise RunError(
            f'The page cannot be served at {host}, port {port}: {reason(error)}. Choose another '
            f'port, such as --port={port + 1 if port < 65535 else 7861}, or another --host.'
        ) from None


def serve(
    workdirs: Sequence[Path],
    stage: str | None = None,
    host: str = '127.0.0.1',
    port: int = 7860,
    wait: bool = True,
):
    """Serve the page of these runs until it is interrupted.

    stage: of each run, if not the last one that draws. wait: False returns the page, which serves
    from threads; `page.close()` ends it.

    Raises RunError without gradio, for an address in use, and for a run that draws nothing.
    """
    gr = gradio()
    require_free(host, port)
    models = offers.open_models(workdirs, stage)
    page = build(models, offers.examples(models))
    theme = gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['monospace'])
    page.launch(
        server_name=host,
        server_port=port,
        theme=theme,
        css_paths=HERE / 'page.css',
        share=False,
        ssr_mode=False,
        quiet=True,
        footer_links=[],
        prevent_thread_lock=True,
    )
    print(f'The page is at {page.local_url} (Ctrl-C ends it).', flush=True)
    if wait:
        page.block_thread()
    return page
