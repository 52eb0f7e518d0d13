"""Many jobs over one sandbox, from JSON lines to JSON lines: the logic of `rt batch`.

Stands between `cli` and `api`. docs/batch.md is the guide.
"""
