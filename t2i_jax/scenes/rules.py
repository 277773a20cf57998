"""Rules of shape_scenes/rules that layouts can be checked against, and their exact floors."""

from tfds_builders.shape_scenes.rules import box_floor, checks, count_floor, flipped, has_up

__all__ = ['box_floor', 'checks', 'count_floor', 'flipped', 'has_up']
