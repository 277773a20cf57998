"""Results of a page as HTML, with pictures as data addresses: nothing is written on the disk.

Of the frames of a film one is shown at a time; film.js chooses it.
"""

import base64
import html
import io
import json
from collections.abc import Sequence

from PIL import Image

from t2i_jax.demo.results import Shown, sheet_of

# pixels of a side from which on frames are compressed
LARGE = 65


def source(picture, kind='PNG', **options) -> str:
    """Return a picture as an address that holds it."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, format=kind, **options)
    return data_address(f'image/{kind.lower()}', out.getvalue())


def data_address(kind, content: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'


def frame_source(picture) -> str:
    """The address of one of many pictures: a large one is compressed."""
    return source(picture, 'WEBP', quality=92) if len(picture) >= LARGE else source(picture)


def image(picture, address, frame=0, kind='') -> str:
    """Return <img>: 128 pixels wide at least; only frame 0 of a film is seen at first."""
    size = max(128, picture.shape[1])
    sharp = ' sharp' if picture.shape[1] < 128 else ''
    on = '' if frame else ' on'
    return (
        f'<img class="t2i-frame{on}{sharp}{kind}" data-frame="{frame}" width="{size}" '
        f'alt="frame {frame}" src="{address}">'
    )


def figure(images, caption='') -> str:
    caption = f'<figcaption>{html.escape(caption)}</figcaption>' if caption else ''
    return f'<figure>{"".join(images)}{caption}</figure>'


def section(one: Shown, by_words: bool) -> str:
    """Return what one run has drawn, as HTML."""
    parts = [f'<h4>{html.escape(one.title)}</h4>']
    if one.error:
        parts.append(f'<p class="t2i-error" role="alert">{html.escape(one.error)}</p>')
    if one.note:
        parts.append(f'<p class="t2i-note">{html.escape(one.note)}</p>')
    if by_words and one.labels:
        words = (
            f'<button type="button" data-show="{i}">{html.escape(word)}</button>'
            for i, word in enumerate(one.labels)
        )
        parts.append(f'<p class="t2i-words">{"".join(words)}</p>')
    captions = [*one.texts]
    if one.frames is not None:
        columns = one.frames.swapaxes(0, 1)
        films = [[image(x, frame_source(x), i) for i, x in enumerate(film)] for film in columns]
        captions += [''] * (len(films) - len(captions))
        parts.append(row(map(figure, films, captions)))
    elif one.pictures is not None:
        images = [[image(x, source(x))] for x in one.pictures]
        for own, x in zip(images, () if one.layouts is None else one.layouts):
            own.append(image(x, source(x), kind=' layout'))
        captions += [''] * (len(images) - len(captions))
        parts.append(row(map(figure, images, captions)))
    elif one.sheet is not None:
        parts.append(f'<img class="t2i-sheet" alt="sheet" src="{source(one.sheet)}">')
    else:
        parts += [f'<p>{html.escape(text)}</p>' for text in one.texts]
    return f'<section>{"".join(parts)}</section>'


def row(figures) -> str:
    return f'<div class="t2i-row">{"".join(figures)}</div>'


def markup(shown: Sequence[Shown], title: str = '', by_words: bool = False) -> str:
    """Return the results of a request as HTML: runs side by side, and two files to download."""
    labels = next((one.labels for one in shown if one.labels), ())
    slider = ''
    if labels and not by_words:
        slider = (
            f'<p class="t2i-ends">{labels[0]} <input class="t2i-slider" type="range" min="0" '
            f'max="{len(labels) - 1}" value="0" aria-label="way gone"> {labels[-1]}</p>'
        )
    sections = ''.join(section(one, by_words) for one in shown)
    sheet = sheet_of(shown, title)
    numbers = json.dumps([one.numbers for one in shown], indent=1, default=str)
    files = {'samples.json': data_address('application/json', numbers.encode())}
    if sheet is not None:
        files = {'sheet.png': source(sheet)} | files
    links = ' '.join(f'<a download="{name}" href="{at}">{name}</a>' for name, at in files.items())
    return (
        f'<div class="t2i">{slider}<div class="t2i-runs">{sections}</div>'
        f'<p class="t2i-files">Download: {links}</p></div>'
    )
