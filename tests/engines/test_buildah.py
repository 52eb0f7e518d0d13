"""buildah, and podman build: images made with rt running their steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab.buildah import Buildah
from lab.engines import case
from lab.podman import IMAGE, Podman
from lab.terminal import Session

FILE = f"""\
FROM {IMAGE}
ARG WORD=none
ENV WORD=$WORD
WORKDIR /made
RUN echo "$WORD" > word && id -u > user
COPY context-file /made/copied
RUN test -s copied && ls /proc/self/fd | wc -l > open
USER 1000
RUN id -u > /tmp/uid
"""


@pytest.fixture(scope="session")
def buildah(podman: Podman) -> Buildah:
    """buildah on the storage of podman, which has the image."""
    return Buildah(podman)


def _context(engine: Podman, text: str = FILE) -> Path:
    context = engine.base / "work" / engine.name()
    context.mkdir()
    (context / "Dockerfile").write_text(text)
    (context / "context-file").write_text("from the context\n")
    engine.user.owns(context)
    return context


def _check(engine: Podman, build: list[str]) -> None:
    tag = f"localhost/{engine.name()}"
    done = engine(*build, "-t", tag, str(_context(engine)))
    assert done.code == 0, str(done)
    podman = engine.podman if isinstance(engine, Buildah) else engine
    shown = podman("run", "--rm", tag, "cat", "word", "user", "copied", "open", "/tmp/uid")
    assert shown.out.splitlines() == ["hello", "0", "from the context", "4", "1000"], str(shown)


@case
def test_bud(buildah: Buildah) -> None:
    _check(buildah, ["bud", "--isolation", "oci", "--build-arg", "WORD=hello"])


@case
def test_bud_as_an_ordinary_user_does(buildah: Buildah) -> None:
    _check(buildah, ["bud", "--isolation", "rootless", "--build-arg", "WORD=hello"])


@case
def test_podman_build(podman: Podman) -> None:
    _check(podman, ["build", "--network=host", "--build-arg", "WORD=hello"])


@case
def test_a_step_that_fails_fails_the_build(buildah: Buildah) -> None:
    context = _context(buildah, f"FROM {IMAGE}\nRUN echo told; exit 7\n")
    done = buildah("bud", "--isolation", "oci", str(context))
    assert done.code == 7 and "told" in done.out + done.err, str(done)


@case
def test_a_step_that_cannot_start_says_why(buildah: Buildah) -> None:
    context = _context(buildah, f'FROM {IMAGE}\nRUN ["/nope"]\n')
    done = buildah("bud", "--isolation", "oci", str(context))
    assert done.code != 0 and "no such file or directory" in done.err, str(done)


@case
def test_from_run_copy_config_commit(buildah: Buildah) -> None:
    work = buildah.ok("from", IMAGE)
    buildah.ok("run", "--isolation", "oci", work, "--", "sh", "-c", "echo made > /made")
    buildah.ok("copy", work, str(_context(buildah) / "context-file"), "/copied")
    buildah.ok("config", "--entrypoint", '["cat", "/made", "/copied"]', work)
    tag = f"localhost/{buildah.name()}"
    buildah.ok("commit", "-q", work, tag)
    assert buildah.podman.ok("run", "--rm", tag) == "made\nfrom the context"
    buildah.ok("rm", work)


@case
def test_run_gives_the_status_and_takes_input(buildah: Buildah) -> None:
    work = buildah.ok("from", IMAGE)
    assert buildah("run", "--isolation", "oci", work, "--", "sh", "-c", "exit 9").code == 9
    assert buildah.ok("run", "--isolation", "oci", work, "--", "cat", stdin="fed") == "fed"
    buildah.ok("rm", work)


@case
def test_run_on_a_terminal(buildah: Buildah) -> None:
    work = buildah.ok("from", IMAGE)
    with Session(buildah, "run", "--isolation", "oci", "-t", work, "--", "sh") as person:
        person.expect("# ")
        person.type("case $(tty) in /dev/pts/* | /dev/console) exit 3 ;; esac; exit 1\n")
        assert person.wait() == 3
    buildah.ok("rm", work)


@case
def test_run_with_mounts_and_rights(buildah: Buildah) -> None:
    work = buildah.ok("from", IMAGE)
    context = _context(buildah)
    options = ("--isolation", "oci", "-v", f"{context}:/c:ro", "--cap-drop", "all", "--user", "1000")
    script = "cat /c/context-file; id -u; grep CapEff /proc/self/status"
    shown = buildah.ok("run", *options, work, "--", "sh", "-c", script)
    assert shown.splitlines()[:2] == ["from the context", "1000"] and shown.endswith("0" * 16), shown
    buildah.ok("rm", work)
