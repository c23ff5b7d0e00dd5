"""How long tests wait for what surely comes."""

#: Seconds after which a test gives up on another process or thread. What passes needs a few of
#: them where nothing else runs, and many where two halves of the tests and their jobs share two
#: cores. So this is a last resort, below pytest's own limit, and nothing that a test asserts.
PATIENCE = 500
