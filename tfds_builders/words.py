"""Rules by which captions are cut into characters and words."""

import re
import unicodedata
from collections import Counter

# Reed et al. (CVPR 2016): 70 positions for 69 symbols. '-' stands twice and its later position
# counts, so position 37 is never used.
ALPHABET = 'abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:\'"/\\|_@#$%^&*~`+-=<>()[]{} '
# characters of a sentence that the char-CNN-RNN reads
CHARS = 201
# words of a sentence that the data pipeline stores; a stage's `length` cuts further
MAX_WORDS = 64


def normalise(text: str) -> str:
    """Return the text in lower case and NFKC, with a blank for each pair of U+FFFD.

    NFKC makes full-width letters, ligatures and odd blanks plain ones.
    """
    return unicodedata.normalize('NFKC', text).replace('\ufffd\ufffd', ' ').lower()


def tokenize(text: str) -> list[str]:
    r"""Return the words of a text as the AttnGAN family cuts them.

    Lower case, `\w+`, characters outside ASCII dropped, empty words dropped.
    """
    words = (
        word.encode('ascii', 'ignore').decode() for word in re.findall(r'\w+', normalise(text))
    )
    return [word for word in words if word]


def count_words(captions) -> Counter:
    """Count the words of captions, any iterable of str."""
    counts = Counter()
    # many data sets repeat captions
    for caption, times in Counter(captions).items():
        for word in tokenize(caption):
            counts[word] += times
    return counts
