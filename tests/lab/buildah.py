"""buildah on the storage of a Podman."""

from __future__ import annotations

from lab.engines import RUNTIMES
from lab.podman import Podman


class Buildah(Podman):
    """Called with words it runs a buildah command; `podman` is podman with the same runtime."""

    engine = "buildah"

    def __init__(self, podman: Podman) -> None:
        self.__dict__.update(podman.__dict__)

    @property
    def podman(self) -> Podman:
        same = object.__new__(Podman)
        same.__dict__.update(self.__dict__)
        return same

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "BUILDAH_RUNTIME": RUNTIMES[self.runtime]}

    def argv(self, *words: str) -> list[str]:
        """The command line of a buildah command; steps of builds use the network of the host."""
        if words[0] in ("bud", "run"):
            words = (words[0], "--network=host", *words[1:])
        return self.place.argv(self.user, self.base / "work", ["buildah", *self.stored(), *words])
