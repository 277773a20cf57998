"""What a page offers of runs; the page itself in a browser, and over HTTP (slow)."""

import inspect
import json
import shutil
import sys
import threading
import types

import numpy as np
import pytest
from helpers import experiment_of, get_config

from t2i_jax import main
from t2i_jax.data.conditions import CONDITIONS
from t2i_jax.demo import offers, page, results
from t2i_jax.demo.markup import markup
from t2i_jax.demo.offers import INPUTS, Model, open_models
from t2i_jax.demo.results import Shown
from t2i_jax.run import Run
from t2i_jax.runtime.errors import DataError, RunError
from t2i_jax.sample import Sampler


@pytest.fixture(scope='module')
def model_of(run_of):
    """A function: a system -> the Model of its tiny run."""
    models = {}

    def model_of(system, stage=None):
        if (system, stage) not in models:
            models[system, stage] = Model(run_of(system), stage)
        return models[system, stage]

    return model_of


# ------------------------------------------------------------------------------------------- tabs
def declared(module):
    """What `tabs_of` asks of a Model, of a stage that is not trained."""
    sampler = types.SimpleNamespace(
        reads_text='sentence' in module.draws_from,
        reads_new_text='sentence' in module.draws_from and 'embedding' not in module.needs,
    )
    return types.SimpleNamespace(module=module, sampler=sampler)


def of_system(system, stage):
    return declared(Run(get_config(experiment_of(system), 'tiny'))[stage].nominal)


OF_SENTENCES = {'draw', 'between', 'z', 'explore'}


@pytest.mark.parametrize(
    'system, stage, tabs, asked',
    [
        ('gan_cls', 'gan', OF_SENTENCES, ['sentence']),
        ('attngan', 'gan', OF_SENTENCES | {'words'}, ['sentence']),
        ('hierarchical_layout', 'image', OF_SENTENCES | {'layout'}, ['sentence']),
        ('layout_vae', 'box', {'draw', 'layout'}, ['sentence', 'labels']),
        ('attribute2image', 'vae', {'draw'}, ['sentence', 'attributes']),
        ('dcgan', 'gan', {'draw', 'z'}, []),
        ('mirrorgan', 'stream', {'draw'}, ['image']),
        ('chat_painter', 'two', OF_SENTENCES | {'dialog'}, ['sentence']),
    ],
)
def test_tabs_follow_from_what_a_stage_declares(system, stage, tabs, asked):
    found = offers.tabs_of([of_system(system, stage)])
    assert set(found) == tabs
    assert list(found['draw'].reads) == asked
    if 'layout' in tabs:
        assert list(found['layout'].reads) == [*asked, 'layout']


@pytest.mark.parametrize('needed', [True, False])
def test_a_stage_that_reads_dialogues_gets_their_field(needed):
    own = dict(draws_from=('sentence', 'dialog') if needed else ('sentence',), needs=())
    own |= dict(takes=() if needed else ('dialog',), makes=('image',), explores={})
    tabs = offers.tabs_of([declared(types.SimpleNamespace(**own))])
    assert tabs['draw' if needed else 'dialog'].reads == ('sentence', 'dialog')
    read = INPUTS['dialog'].read('what colour is the ring? red\n\nis it large? yes')
    assert read == [[('what colour is the ring', ' red'), ('is it large', ' yes')]]


def test_a_run_is_in_the_tabs_that_it_offers():
    models = [of_system('attngan', 'gan'), of_system('dcgan', 'gan')]
    tabs = offers.tabs_of(models)
    assert tabs['draw'].models == tabs['z'].models == models
    assert tabs['words'].models == models[:1]


def test_every_condition_has_a_field():
    assert set(INPUTS) == set(CONDITIONS)
    assert {one.keyword for one in INPUTS.values()} <= {*inspect.signature(Sampler).parameters} | {
        *inspect.signature(Sampler.__call__).parameters
    }


# ---------------------------------------------------------------------------------------- drawing
def test_runs_draw_from_equal_noise(model_of, trained, tmp_path):
    own = model_of('gan_cls')
    same = Model(shutil.copytree(trained, tmp_path / 'same'))
    shown = results.draw([own, same], {'sentence': 'a red ring'}, 3, 5)
    expected = own.sampler(['a red ring'], num=3, seed=5).images[0]
    assert [np.array_equal(one.pictures, expected) for one in shown] == [True, True]
    assert shown[1].numbers == {
        'run': 'same',
        'stage': 'gan',
        'step': 6,
        'given': {'sentence': 'a red ring'},
        'num': 3,
        'seed': 5,
    }


def close(a, b):
    """Equal but for rounding: rows of several sizes are compiled apart."""
    return np.abs(np.asarray(a, int) - b).max() <= 2


def test_ends_are_the_pictures_of_the_sentences_and_seeds(model_of):
    models = [model_of('gan_cls')]

    def drawn(sentence, seed):
        return results.draw(models, {'sentence': sentence}, 2, seed)[0].pictures

    (path,) = results.between(models, 'a red ring', 'a blue square', 2, 3)
    assert path.frames.shape[:2] == (results.STEPS, 2) and path.labels[5] == '50 %'
    assert close(path.frames[0], drawn('a red ring', 3))
    assert close(path.frames[-1], drawn('a blue square', 3))
    (path,) = results.between_seeds(models, 'a red ring', 2, 3, 8)
    assert close(path.frames[0], drawn('a red ring', 3))
    assert close(path.frames[-1], drawn('a red ring', 8))
    (path,) = results.between_seeds([model_of('dcgan')], None, 2, 3, 8)
    assert not path.error and len(path.frames) == results.STEPS


def test_each_word_has_a_frame(model_of):
    model = model_of('attngan')
    (shown,) = results.look([model], 'a red ring foo', 1)
    assert list(shown.labels) == ['picture', 'a', 'red', 'ring']
    assert shown.note == 'It does not know foo.'
    picture = model.sampler(['a red ring foo'], num=1, seed=1).images[0, 0]
    factor = shown.frames.shape[2] // len(picture)
    assert np.array_equal(shown.frames[0, 0, ::factor, ::factor], picture)
    assert not np.array_equal(shown.frames[1], shown.frames[2])
    assert results.sheet_of([shown]) is shown.sheet or shown.sheet.shape[2] == 3


BOX = {'label': 'circle', 'cx': 0.3, 'cy': 0.3, 'w': 0.4, 'h': 0.4}


def test_boxes_are_given_or_made(model_of):
    models, given = [model_of('hierarchical_layout')], {'sentence': 'a red circle'}
    (made,) = results.draw(models, given, 2, 0)
    assert made.layouts.shape[0] == len(made.pictures) == 2
    (shown,) = results.draw(models, given | {'layout': json.dumps([BOX])}, 2, 0)
    assert [
        {k: v if k == 'label' else round(v, 3) for k, v in one.items()} for one in shown.objects
    ] == [BOX]
    (shown,) = results.draw(models, given | {'layout': json.dumps([BOX | {'label': 'dog'}])}, 2, 0)
    assert 'has no label' in shown.error and shown.pictures is None
    (completed,) = results.draw([model_of('layout_vae')], {'layout': json.dumps([BOX])}, 1, 0)
    assert not completed.error and 'circle' in [one['label'] for one in completed.objects]


@pytest.mark.parametrize('text', ['"secret.json"', '["secret.json"]', '{', '7'])
def test_boxes_of_a_page_never_name_a_file(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'secret.json').write_text('["nobody reads this"]')
    with pytest.raises(DataError, match='The boxes are') as error:
        INPUTS['layout'].read(text)
    assert 'nobody' not in str(error.value)


def test_labels_and_attributes_are_given_or_named_in_sentences(model_of):
    models = [model_of('layout_vae'), model_of('attribute2image')]
    given = {'labels': 'circle, square', 'attributes': 'circle, red'}
    for own in (given, {'sentence': 'a red circle'}):
        shown = results.draw(models, own, 2, 0)
        assert [one.error for one in shown] == ['', '']
        assert [len(one.pictures) for one in shown] == [2, 2]


def test_pictures_are_described_and_read_back(model_of):
    picture = np.full((20, 30, 3), 90, np.uint8)
    (shown,) = results.draw([model_of('mirrorgan', 'stream')], {'image': picture}, 4, 0)
    # without noise there is one of each
    assert len(shown.texts) == 1 and shown.pictures is None
    (shown,) = results.draw([model_of('mirrorgan')], {'sentence': 'a red ring'}, 2, 0)
    assert len(shown.texts) == len(shown.pictures) == 2
    assert shown.numbers['texts'] == shown.texts


def test_sentences_are_explored(model_of):
    models = [model_of('gan_cls')]
    (shown,) = results.explore(models, 'swap_word', 'a red ring\na blue ring\n', 2, 0)
    assert shown.sheet.ndim == 3 and shown.numbers['words'] == [['red', 'blue']]
    for what, text, message in (
        ('swap_word', '', 'Write 1 to 16 sentences'),
        ('swap_word', 'a red ring', 'takes sentences in pairs'),
        # it reads the training data
        ('nearest', 'a red ring', 'does not offer'),
        ('z_interpolation', 'a red ring', 'does not offer'),
    ):
        assert message in results.explore(models, what, text, 2, 0)[0].error


# --------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    'sentence, num, seed, message',
    [
        ('', 2, 0, 'draws from sentences: give some'),
        (' !', 2, 0, 'has no words'),
        ('x' * 10_000, 2, 0, 'knows no word'),
        ('a red ring', 17, 0, 'must be between 1 and 16'),
        ('a red ring', 2.5, 0, 'expected a whole number'),
        ('a red ring', 2, None, 'expected a whole number'),
        ('a red ring', 2, -1, 'must be between'),
    ],
)
def test_a_mistake_is_one_message(model_of, sentence, num, seed, message):
    (shown,) = results.draw([model_of('gan_cls')], {'sentence': sentence}, num, seed)
    assert message in shown.error and '\n' not in shown.error and len(shown.error) < 1000
    assert shown.pictures is None and shown.numbers['error'] == shown.error


def test_a_long_sentence_is_cut(model_of):
    (shown,) = results.draw([model_of('gan_cls')], {'sentence': 'a red ring ' * 1000}, 1, 0)
    assert not shown.error and 'It reads the first' in shown.note
    assert len(markup([shown], 'a red ring ' * 1000)) < 100_000


def test_a_run_that_refuses_leaves_the_others(model_of):
    models = [model_of('attribute2image'), model_of('gan_cls')]
    refused, shown = results.draw(models, {'sentence': 'a ring', 'attributes': 'dog'}, 1, 0)
    assert 'has no attribute' in refused.error and not shown.error
    html = markup([refused, shown])
    assert 'role="alert"' in html and html.count('<img') == 1


def test_many_clients_at_once(model_of):
    model, found = model_of('gan_cls'), {}
    running, most = set(), []
    sampler = model.sampler

    def call(*args, **options):
        running.add(threading.get_ident())
        most.append(len(running))
        out = sampler(*args, **options)
        running.discard(threading.get_ident())
        return out

    class Watched:
        __call__ = staticmethod(call)

        def __getattr__(self, name):
            return getattr(sampler, name)

    def ask(seed):
        found[seed] = results.draw([model], {'sentence': 'a red ring'}, 1, seed)[0].pictures

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(20)]
    model.sampler = Watched()
    try:
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    finally:
        model.sampler = sampler
    assert len(found) == 20 and max(most) == 1
    assert np.array_equal(found[7], sampler(['a red ring'], num=1, seed=7).images[0])


# ------------------------------------------------------------------------------------------- runs
def test_a_run_that_is_still_training_shows_its_newest_checkpoint(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / 'run')
    folder = run / 'gan' / 'checkpoints'
    shutil.move(folder / '6', tmp_path / '6')
    model = Model(run)
    assert model.title == 'run: gan, step 3'
    before = results.draw([model], {'sentence': 'a red ring'}, 1, 0)[0].pictures
    shutil.move(tmp_path / '6', folder / '6')
    results.refresh([model])
    assert model.title == 'run: gan, step 6'
    after = results.draw([model], {'sentence': 'a red ring'}, 1, 0)[0].pictures
    assert not np.array_equal(before, after)


def test_runs_have_names_that_differ(trained, tmp_path):
    for name in ('a', 'b'):
        shutil.copytree(trained, tmp_path / name / 'run')
    paths = [
        tmp_path / 'a' / 'run',
        tmp_path / 'b' / 'run',
        'example:shapes',
        tmp_path / 'b' / 'run',
    ]
    names = [model.name for model in open_models(paths)]
    assert names == ['a/run', str(tmp_path / 'b' / 'run'), 'shapes', str(tmp_path / 'b' / 'run')]
    with pytest.raises(RunError, match='has no finished checkpoint|config.json'):
        open_models([tmp_path / 'nowhere'])


def test_examples_are_held_out_captions_of_prepared_data(model_of, tmp_path):
    model = model_of('gan_cls')
    split = model.stage.split(model.stage.data['validation_split'])
    found = offers.examples([model], 5)
    assert len(found) == 5 and set(found) <= {texts[0] for texts in split.texts}
    data = model.stage.data | {'dir': str(tmp_path / 'data')}
    elsewhere = types.SimpleNamespace(stage=types.SimpleNamespace(data=data))
    assert offers.examples([elsewhere]) == [] and not (tmp_path / 'data').exists()


# ------------------------------------------------------------------------------------------ markup
def pictures(n, side):
    return np.random.default_rng(side).integers(0, 256, (n, side, side, 3), np.uint8)


def test_runs_of_several_sizes_share_a_sheet():
    shown = [Shown('a', pictures=pictures(3, 16)), Shown('b', pictures=pictures(1, 64))]
    wide = results.sheet_of(shown).shape[1]
    assert wide > 3 * 64 and results.sheet_of([Shown('c', error='no')]) is None
    html = markup(shown)
    assert html.count('width="128"') == 4 and html.count(' sharp') == 4
    assert 'download="sheet.png"' in html and 'download="samples.json"' in html


def test_what_a_user_writes_is_escaped():
    one = Shown('<b>run</b>', error='<script>', texts=['<i>'], pictures=pictures(1, 8), note='<u>')
    html = markup([one, one._replace(labels=['<s>'], frames=pictures(1, 8)[None])], '<a>', True)
    assert not [tag for tag in ('<b>', '<script', '<i>', '<u>', '<s>') if tag in html]


# ------------------------------------------------------------------------------------ command line
def test_the_command_takes_several_runs(trained, monkeypatch):
    served = []
    monkeypatch.setattr(page, 'serve', lambda *args: served.append(args))
    main.cli(['t2i_jax', '--mode=demo', f'--workdir={trained}', 'example:shapes', '--port=7861'])
    assert served == [([str(trained), 'example:shapes'], None, '127.0.0.1', 7861)]
    for words, message in (
        (['--port=70000'], '--port is 70000; it must be between 1 and 65535'),
        (['--num=2'], '--num is not read by --mode=demo'),
    ):
        with pytest.raises(RunError, match=message):
            main.parse([f'--workdir={trained}', '--mode=demo', *words])


def test_without_gradio_and_at_a_port_in_use(monkeypatch, trained):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    page.gradio.cache_clear()
    with pytest.raises(RunError, match=r"needs the package gradio: pip install 't2i_jax\[demo\]'"):
        page.serve([trained])
    with page.socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=f'port {port}: Address already in use. Choose another'):
            page.require_free('127.0.0.1', port)
    page.require_free('127.0.0.1', port)
    with pytest.raises(RunError, match='cannot be served at nowhere.invalid'):
        page.require_free('nowhere.invalid', port)


# ----------------------------------------------------------------------------------- in a browser
@pytest.fixture
def served(run_of):
    """The address of a page of three runs."""
    pytest.importorskip('gradio')
    with page.socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    page.gradio.cache_clear()
    runs = [run_of(system) for system in ('gan_cls', 'attngan', 'hierarchical_layout')]
    one = page.serve(runs, port=port, wait=False)
    yield f'http://127.0.0.1:{port}/'
    one.close()


@pytest.fixture
def browser(tmp_path):
    """Debian's Chromium without a screen, driven by Selenium."""
    webdriver = pytest.importorskip('selenium.webdriver')
    paths = [shutil.which(name) for name in ('chromium', 'chromedriver')]
    if not all(paths):
        pytest.skip('chromium and chromedriver are not installed')
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    quiet = ('gpu', 'quic', 'background-networking', 'component-update', 'sync', 'dev-shm-usage')
    flags = ['headless=new', 'no-sandbox', 'no-first-run', 'window-size=1400,1200']
    for flag in [*flags, *(f'disable-{name}' for name in quiet)]:
        options.add_argument(f'--{flag}')
    options.add_argument(f'--user-data-dir={tmp_path / "profile"}')
    options.add_experimental_option('prefs', {'download.default_directory': str(tmp_path)})
    driver = webdriver.Chrome(options, webdriver.ChromeService(paths[1]))
    driver.downloads = tmp_path
    yield driver
    driver.quit()


class Reader:
    """A person in front of a page: opens a tab, types, waits for what comes."""

    def __init__(self, driver, tab, title):
        from selenium.webdriver.support.ui import WebDriverWait

        self.driver, self.tab = driver, tab
        self.wait = WebDriverWait(driver, 300).until
        tabs = '//button[@role="tab"][normalize-space()="' + title + '"]'
        self.wait(lambda d: d.find_elements('xpath', tabs))[0].click()

    def all(self, css):
        return self.driver.find_elements('css selector', f'#tab-{self.tab} {css}')

    def some(self, css):
        """Those that are there, once there are any."""
        return self.wait(lambda d: [x for x in self.all(css) if x.is_displayed()])

    def type(self, *texts):
        fields = self.some('[data-testid=textbox]')
        for field, text in zip(fields, texts):
            field.clear()
            field.send_keys(text)
        fields[len(texts) - 1].send_keys('\n')

    def seen(self):
        """The pictures that are shown, of all runs."""
        return [x.get_attribute('src') for x in self.some('img.t2i-frame.on')]

    def another(self, old):
        """Wait until the pictures are not these."""
        return self.wait(lambda d: (new := self.seen()) != old and new)


@pytest.mark.slow
def test_the_page_in_a_browser(served, browser):
    from selenium.webdriver import ActionChains

    browser.get(served)
    # type, see pictures of all runs, another sentence, another picture
    reader = Reader(browser, 'draw', 'Draw')
    reader.type('a red ring')
    first = reader.seen()
    # four pictures of each, and the layouts of one
    assert len(reader.all('section')) == 3 and len(first) == 16
    reader.type('a blue square')
    second = reader.another(first)
    # a mistake is a message, and the page goes on
    reader.type('zzz')
    message = reader.some('[role=alert]')[0].text
    assert 'knows no word' in message
    reader.type('a blue square')
    assert reader.another([]) == second
    reader.some('a[download="sheet.png"]')[0].click()
    reader.wait(lambda d: (browser.downloads / 'sheet.png').exists())

    # click a word
    reader = Reader(browser, 'words', 'What pixels look at')
    reader.type('a red ring')
    picture = reader.seen()
    words = reader.some('[data-show]')
    assert [word.text for word in words] == ['picture', 'a', 'red', 'ring']
    words[2].click()
    red = reader.another(picture)
    words[3].click()
    assert reader.another(red) != picture

    # draw a box, and drag it
    reader = Reader(browser, 'layout', 'Boxes')
    reader.type('a red ring')
    made = reader.seen()
    reader.some('[data-do=clear]')[0].click()
    canvas = reader.some('canvas')[0]

    def drag(start, end):
        steps = ActionChains(browser).move_to_element_with_offset(canvas, *start).click_and_hold()
        steps.move_to_element_with_offset(canvas, *end).release().perform()

    drag((-90, -90), (0, 0))
    drawn = reader.another(made)
    drag((-50, -50), (30, 40))
    assert len(reader.another(drawn)) == 8

    # a slider goes from one sentence to another
    reader = Reader(browser, 'between', 'Between two sentences')
    reader.type('a red ring', 'a blue square')
    start = reader.seen()
    slider = reader.some('.t2i-slider')[0]
    slider.send_keys('\ue014' * 3)
    reader.another(start)
    assert {x.get_attribute('data-frame') for x in reader.some('img.t2i-frame.on')} == {'3'}


@pytest.mark.slow
def test_twenty_clients_over_http(served):
    client = pytest.importorskip('gradio_client').Client
    found = {}

    def ask(seed):
        one = client(served, verbose=False)
        found[seed] = one.predict(1, seed % 4, 'a red ring', api_name='/draw')

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(20)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(found) == 20 and all(html.count('<section>') == 3 for html in found.values())
    assert len(set(found.values())) == 4
    again = client(served, verbose=False)
    assert 'role="alert"' in again.predict(1, 0, 'zzz', api_name='/draw')
