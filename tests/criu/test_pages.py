"""Memory that goes another way than the images: to a page server, or fetched page by page as it is needed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.criu import BIG, TICK, Saver, goes_on, run_script, summed
from lab.leftovers import Ground
from lab.waiting import PATIENCE, until

BOX = f"pages{os.getpid()}"
PIPE = 4 << 20  # bytes: what criu's server of pages wants
LIMIT = Path("/proc/sys/fs/pipe-max-size")
_ports = iter(range(20000 + os.getpid() % 10000, 32000))


@pytest.fixture
def wide_pipes() -> Iterator[None]:
    """Pipes as large as criu wants them, which root may not make where it lacks CAP_SYS_RESOURCE."""
    before = LIMIT.read_text()
    if int(before) < PIPE:
        try:
            LIMIT.write_text(str(PIPE))
        except OSError as error:
            pytest.skip(f"fs.pipe-max-size is {before.strip()}, and cannot be raised: {error.strerror}")
    yield
    LIMIT.write_text(before)


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


@contextmanager
def helper(rt: Saver, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(rt.criu), *words]
    with ended(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)) as made:
        yield made


@contextmanager
def fetching(rt: Saver, images: Path, work: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """`criu lazy-pages`, once a restore can come to it."""
    work.mkdir(mode=0o700)
    with helper(rt, "lazy-pages", "-D", str(images), "-W", str(work), *words) as made:
        until((work / "lazy-pages.socket").exists, "criu lazy-pages begins")
        yield made


@contextmanager
def serving(rt: Saver, images: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A checkpoint of BOX that hands out memory; and its status descriptor has told so."""
    mine, theirs = os.pipe()
    words = ["checkpoint", "--image-path", str(images), "--lazy-pages", "--status-fd", str(theirs)]
    words += ["--page-server", f"127.0.0.1:{port}", BOX]
    with ended(rt.popen(*words, stderr=subprocess.PIPE, pass_fds=[theirs])) as source:
        os.close(theirs)
        assert os.read(mine, 10) == b"\0", source.communicate(timeout=PATIENCE)
        assert os.read(mine, 10) == b"", "it is closed"
        os.close(mine)
        yield source


def free_port() -> int:
    """Below those that the kernel gives by itself (ip_local_port_range): nobody gets it meanwhile."""
    for port in _ports:
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise AssertionError("no port is free")


def wait_listening(port: int) -> None:
    wanted = f":{port:04X} "
    until(lambda: wanted in Path("/proc/net/tcp").read_text(), "somebody listens")


@pytest.mark.covers("checkpoint --page-server")
def test_memory_goes_to_a_page_server(root_rt: Saver, python: Bundle, images: Path, place: Path) -> None:
    run_script(python, BIG)
    root_rt.start(BOX, python.path)
    before = summed(place)
    images.mkdir(mode=0o700)
    port = free_port()
    where = ["--images-dir", str(images), "--address", "127.0.0.1", "--port", str(port)]
    with helper(root_rt, "page-server", *where) as server:
        wait_listening(port)
        meta = place / "meta"
        root_rt.save(BOX, meta, "--page-server", f"127.0.0.1:{port}")
        server.wait(PATIENCE)
    assert not list(meta.glob("pages-*.img")) and list(images.glob("pages-*.img"))
    for path in meta.iterdir():
        path.rename(images / path.name)
    root_rt.bring_back(BOX, images, python.path)
    assert summed(place) == before


@pytest.mark.parametrize("given", ["nowhere", ":27", "host:", "host:0", "host:70000", "host:x"])
def test_a_page_server_is_an_address_and_a_port(root_rt: Saver, given: str) -> None:
    done = root_rt("checkpoint", "--page-server", given, BOX)
    assert done.returncode == 1 and f"--page-server '{given}': is not ADDRESS:PORT" in done.stderr


@pytest.mark.covers("checkpoint --lazy-pages", "checkpoint --status-fd", "restore --lazy-pages")
def test_memory_is_fetched_as_it_is_needed_from_where_it_was(
    root_rt: Saver, python: Bundle, images: Path, place: Path, wide_pipes: None
) -> None:
    run_script(python, BIG)
    root_rt.start(BOX, python.path)
    before = summed(place)
    port, work = free_port(), place / "work"
    where = ["--page-server", "--address", "127.0.0.1", "--port", str(port)]
    with serving(root_rt, images, port) as source:
        saved = sum(path.stat().st_size for path in images.glob("pages-*.img"))
        assert saved < 3 << 20, "the memory is not in the images"
        with fetching(root_rt, images, work, *where) as fetcher:
            moved = ["--lazy-pages", "--work-path", str(work)]
            root_rt.bring_back(f"{BOX}-b", images, python.path, *moved)
            assert summed(place) == before
            assert (fetcher.wait(PATIENCE), source.wait(PATIENCE)) == (0, 0), "all is fetched"
    assert root_rt.ok("list", "-q").split() == [f"{BOX}-b"], "it has moved"


@pytest.mark.covers("restore --lazy-pages")
def test_memory_is_read_from_the_images_as_it_is_needed(
    root_rt: Saver, python: Bundle, images: Path, place: Path
) -> None:
    run_script(python, BIG)
    root_rt.start(BOX, python.path)
    before = summed(place)
    root_rt.save(BOX, images)
    work = place / "work"
    with fetching(root_rt, images, work) as fetcher:
        root_rt.bring_back(BOX, images, python.path, "--lazy-pages", "--work-path", str(work))
        assert summed(place) == before
        assert fetcher.wait(PATIENCE) == 0


@pytest.mark.covers("checkpoint --lazy-pages", "checkpoint --status-fd")
def test_nobody_has_to_come_for_the_memory(
    root_rt: Saver, root_bundle: MakeBundle, images: Path, wide_pipes: None
) -> None:
    box = root_bundle(TICK)
    root_rt.start(BOX, box.path)
    goes_on(box)
    with serving(root_rt, images, free_port()) as source:
        assert source.poll() is None, "it serves the pages"
        source.send_signal(signal.SIGTERM)
        assert source.wait(PATIENCE) == 128 + signal.SIGTERM
    goes_on(box)
    assert not (images / "rt.json").exists()


@pytest.mark.covers("restore --lazy-pages")
def test_a_restore_whose_memory_never_comes_is_ended_by_a_signal_with_nothing_left(
    root_rt: Saver, root_bundle: MakeBundle, images: Path, place: Path, wide_pipes: None
) -> None:
    box = root_bundle(TICK)
    root_rt.start(BOX, box.path)
    goes_on(box)
    with serving(root_rt, images, free_port()) as source:
        ground = Ground(root_rt, f"{BOX}-b")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port, work = silent.getsockname()[1], place / "work"
            where = ["--page-server", "--address", "127.0.0.1", "--port", str(port)]
            with fetching(root_rt, images, work, *where):
                words = ["--lazy-pages", "--image-path", str(images), "--work-path", str(work)]
                with root_rt.popen("restore", "-d", *words, "-b", str(box.path), f"{BOX}-b") as process:
                    connection, _ = silent.accept()
                    with connection:
                        assert connection.recv(1), "it asks for a page"
                        process.terminate()
                        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
        ground.clean()
        assert root_rt.ok("list", "-q").split() == [BOX]
        source.terminate()
        source.wait(PATIENCE)
    goes_on(box)


@pytest.mark.covers("restore --lazy-pages")
def test_memory_that_nobody_fetches_is_named(root_rt: Saver, root_bundle: MakeBundle, images: Path) -> None:
    box = root_bundle(TICK)
    root_rt.start(BOX, box.path)
    root_rt.save(BOX, images)
    words = ["restore", "-d", "--image-path", str(images), "-b", str(box.path), "--lazy-pages"]
    done = root_rt(*words, BOX)
    assert done.returncode == 1 and "criu lazy-pages" in done.stderr, done.stderr
    assert root_rt.ok("list", "-q") == ""


def test_pipes_that_are_too_small_are_named_before_anything_is_done(
    root_rt: Saver, root_bundle: MakeBundle, images: Path
) -> None:
    if int(LIMIT.read_text()) >= PIPE:
        pytest.skip("fs.pipe-max-size is large enough here")
    box = root_bundle(TICK)
    root_rt.start(BOX, box.path)
    where = ["--lazy-pages", "--page-server", f"127.0.0.1:{free_port()}"]
    words = root_rt.argv("checkpoint", "--image-path", str(images), *where, BOX)
    done = subprocess.run(
        ["setpriv", "--bounding-set", "-sys_resource", *words], capture_output=True, text=True, check=False
    )
    line, hint = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("rt: --lazy-pages does not work here: criu needs a pipe")
    assert hint == f"hint: sysctl fs.pipe-max-size={PIPE}"
    assert not images.exists()
    goes_on(box)


def test_memory_is_not_handed_out_at_any_address(root_rt: Saver) -> None:
    done = root_rt("checkpoint", "--lazy-pages", BOX)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "rt: --lazy-pages needs --page-server"


def test_a_status_descriptor_must_be_open_for_writing(root_rt: Saver) -> None:
    mine, theirs = os.pipe()
    served = ["--lazy-pages", "--page-server", "127.0.0.1:1"]
    for fd, problem in (
        (mine, "is not open for writing"),
        (999, "is not open for writing"),
        ("x", "is not a number"),
    ):
        done = root_rt("checkpoint", *served, "--status-fd", str(fd), BOX, pass_fds=[mine, theirs])
        assert done.returncode == 1 and problem in done.stderr
    done = root_rt("checkpoint", "--status-fd", str(theirs), BOX, pass_fds=[theirs])
    assert "--status-fd goes with --lazy-pages" in done.stderr
    os.close(mine)
    os.close(theirs)


def test_a_checkpoint_that_cannot_tell_of_its_pages_is_given_up(
    root_rt: Saver, root_bundle: MakeBundle, images: Path, wide_pipes: None
) -> None:
    box = root_bundle(TICK)
    root_rt.start(BOX, box.path)
    mine, theirs = os.pipe()
    os.close(mine)
    words = ["--lazy-pages", "--page-server", f"127.0.0.1:{free_port()}", "--status-fd", str(theirs)]
    done = root_rt("checkpoint", "--image-path", str(images), *words, BOX, pass_fds=[theirs])
    os.close(theirs)
    assert done.returncode == 1
    assert done.stderr == f"rt: --status-fd {theirs}: nobody is told that pages can be fetched: broken pipe\n"
    goes_on(box)
