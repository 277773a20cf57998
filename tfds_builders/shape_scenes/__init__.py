# the module of the functions that read sentences; see tfds_builders.conditions_of
CONDITIONS = 'tfds_builders.shape_scenes.sentences'
