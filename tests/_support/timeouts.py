"""How long tests wait for something that always happens."""

#: Seconds after which a test stops waiting for another process or thread. A wait that succeeds
#: takes a few seconds on an idle machine and many on a busy one. The limit is a last resort, below
#: pytest's own, and no test asserts on it.
TIMEOUT = 500
