"""The only place in t2i_jax that knows the words of shape_scenes (systems/shape_net.py apart).

`Meta.scenes` says what data are: 'single', 'multi' (pictures of shape scenes), 'rules' (layouts
under known rules), or '' for all other data. Functions here take it and return nothing for ''.

    readers     pictures -> scene tables, by the analytic and the trained reader; ShapeFeatures
    agreement   scene tables and captions -> how well they agree
    explored    what the readers find in explored pictures
    captions    whether captions that a system wrote are true
    attention   how much of a word's attention lies on what the word is true of
    rules       checks and floors of layouts under rules
    analytic, trained    the two readers
"""
