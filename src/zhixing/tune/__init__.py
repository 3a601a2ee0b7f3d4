"""Search for a better recipe: which trials there are, how long each is trained, and what is made of them.

``space`` says what may vary, ``suggest`` draws the next settings, ``hyperband`` says how far each trial is trained,
``trial`` trains one up to there, ``journal`` remembers, ``study`` is the work of one process, ``workers`` of several,
``confirm`` and ``page`` say what was found. One journal file, locked by the system, is all that processes share.
"""
