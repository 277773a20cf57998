"""Numbers that tell of the usual troubles of a GAN."""

import numpy as np

from t2i_jax.evaluate.trouble import troubles


def value(metric, number, pictures='drawn', **more):
    interval = [number - 0.02, number + 0.02]
    protocol = dict(pictures=pictures, split='test', **more)
    return dict(metric=metric, value=number, interval=interval, protocol=protocol)


def test_a_run_in_order_has_none():
    values = [value('sem_acc', 0.5), value('sem_acc', 0.03, 'shuffled')]
    values += [value('ms_ssim_same_caption', 0.3), value('r_precision', 0.4, chance=0.01)]
    logged = {'train/real_logit': np.full(50, 1.0), 'train/drawn_logit': np.full(50, -1.0)}
    assert troubles(values, logged) == troubles(values, {}) == []


def test_each_trouble_is_said_once_with_a_remedy():
    values = [value('sem_acc', 0.04), value('sem_acc', 0.03, 'shuffled')]
    values += [value('r_precision_entailment', 0.012, chance=0.01)]
    values += [value('ms_ssim_same_caption', 0.95)]
    logged = {
        'train/real_logit': np.r_[np.zeros(45), np.full(5, 9.0), np.nan],
        'train/drawn_logit': np.zeros(51),
    }
    deaf, same, won = troubles(values, logged)
    assert 'sem_acc is 0.040, of shuffled real pairs 0.030' in deaf and 'near_wrong' in deaf
    assert 'MS-SSIM 0.95' in same and 'nz' in same
    assert 'differ by 9.0' in won and 'game.spectral' in won
    # D was beaten later on
    logged['train/real_logit'] = np.r_[np.full(45, 9.0), np.zeros(6)]
    assert not any('D tells' in text for text in troubles(values, logged))
