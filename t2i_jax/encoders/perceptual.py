"""Perceptual losses of stages: pictures are compared by the maps of a frozen network."""

from t2i_jax.encoders.vgg import Vgg, own_weights, require_vgg
from t2i_jax.losses import map_distance
from t2i_jax.runtime.errors import choose

FEATURES = 'vgg16', 'text'


class Perceptual:
    """A stage that compares the maps phi of a frozen network; it may load one as `picture`.

    The keywords `features`, `features_weights` and `features_normalised` are its own.
    """

    def watch(self, meta, features, weights, normalised, picture):
        """Take the frozen network.

        features: 'vgg16', or 'text', the picture encoder of stage `text`.
        weights, normalised: of VGG16. picture: that encoder, or None.
        """
        self.features = choose('features', features, FEATURES)
        if features == 'vgg16':
            self.vgg = Vgg(own_weights(weights, meta), normalised, blocks=5)
        elif picture is None:
            raise ValueError(
                "features='text' are those of the picture encoder of stage text, which this run "
                "does not train: set features='vgg16'."
            )
        else:
            self.picture = picture

    def unlikeness(self, drawn, real):
        """Compute sum_l mean |phi_l(drawn) - phi_l(real)| of pictures b s s 3."""
        phi = self.vgg if self.features == 'vgg16' else self.picture
        return map_distance(phi.maps(drawn), phi.maps(real))

    @classmethod
    def require(cls, model, stage):
        """Check for the weights of VGG16 before training. model: of the stage of this name."""
        if model['features'] == 'vgg16':
            at = f'stages.{stage}.model'
            require_vgg(model['features_weights'], f'{at}.features_weights', f'{at}.features=text')
