"""The values that settings of data can have; config.py and the readers of data share them."""

CACHES = 'device', 'host', 'none'
CROPS = '', 'bbox'
RESIZES = 'squash', 'keep'
SAMPLERS = 'uniform', 'class_balanced', 'distinct_classes', 'mixed'
