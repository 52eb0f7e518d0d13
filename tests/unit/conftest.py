"""What all unit tests share: a garbage collector that does not keep going through what stays, and time."""

import gc

from hypothesis import settings

# pytest keeps the reports of thousands of tests, and the tests of the house keep syntax trees of millions of
# nodes. Full collections go through all of them, and took a sixth of the time.
gc.set_threshold(200_000, 20, 100)

# Hypothesis gives each example 200 ms, which a busy machine exceeds.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
