"""What all unit tests share: a garbage collector that does not keep going through what stays."""

import gc

# pytest keeps the reports of thousands of tests, and the tests of the house keep syntax trees of millions of
# nodes. Full collections go through all of them, and took a sixth of the time.
gc.set_threshold(200_000, 20, 100)
