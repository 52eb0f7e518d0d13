"""config.json: read it (`load`), check it (`schema`, `rules`, `mountopts`), make it (`defaults`); `names`.

Knows nothing of the host, of containers that exist, or of how a plan is carried out.
"""
