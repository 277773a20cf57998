"""Values that settings of data can have, shared by config/tables.py and the readers of data."""

CACHES = 'device', 'host', 'none'
CROPS = '', 'bbox'
RESIZES = 'squash', 'keep'
SAMPLERS = 'uniform', 'class_balanced', 'distinct_classes', 'mixed', 'twins'
