"""Bind mounts with mapped ids (mount_setattr(2)), by root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import held, map_ids, mounts_of, output, own_mounts, refusal, set_namespace
from lab.runtime import Runtime

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can map the ids of a mount")
OWNERS = "stat -c %u:%g /v/one /v/two"


@pytest.fixture
def volume(place: Path) -> Path:
    """A directory with files of 1234:1235 and of 0:0."""
    path = place / "volume"
    path.mkdir()
    path.chmod(0o777)
    for name, uid, gid in (("one", 1234, 1235), ("two", 0, 0)):
        (path / name).touch()
        os.chown(path / name, uid, gid)
    return path


def binding(bundle: Bundle, volume: Path, *options: str, **maps: tuple[int, int, int]) -> Bundle:
    item = {"destination": "/v", "type": "bind", "source": str(volume), "options": ["rbind", *options]}
    for field, (inside, outside, count) in maps.items():
        item[field] = [{"containerID": inside, "hostID": outside, "size": count}]
    return bundle.change(lambda config: config["mounts"].append(item))


def in_userns(bundle: Bundle) -> Bundle:
    subprocess.run(["chown", "-R", "-h", "100000:100000", str(bundle.rootfs)], check=True)
    return map_ids(set_namespace(bundle, "user"), (0, 100000, 65536))


@pytest.mark.covers("mounts[].uidMappings", "mounts[].gidMappings")
def test_ids_on_the_disk_are_shown_as_others_and_new_files_get_them_back(
    root_rt: Runtime, root_bundle: MakeBundle, volume: Path
) -> None:
    os.chown(volume, 1234, 1235)  # nobody may write what belongs to no mapped id
    made = binding(root_bundle(), volume, uidMappings=(1234, 0, 1), gidMappings=(1235, 0, 1))
    said = output(root_rt, made, f"{OWNERS}; echo > /v/new; cat /proc/self/mountinfo")
    assert said.split()[:2] == ["0:0", "65534:65534"]
    status = (volume / "new").stat()
    assert (status.st_uid, status.st_gid) == (1234, 1235)
    assert "idmapped" in mounts_of("\n".join(said.splitlines()[2:]))["/v"].options


@pytest.mark.covers("mounts[].options idmap", "mounts[].options ridmap")
@pytest.mark.parametrize("word", ["idmap", "ridmap"])
def test_the_container_s_own_map_makes_the_volume_its_own(
    word: str, root_rt: Runtime, root_bundle: MakeBundle, volume: Path
) -> None:
    made = binding(in_userns(root_bundle()), volume, word)
    assert output(root_rt, made, f"{OWNERS}; echo > /v/new; stat -c %u /v/new").split() == [
        "1234:1235",
        "0:0",
        "0",
    ]
    assert (volume / "new").stat().st_uid == 0


def test_ranges_are_written_as_an_option_too(root_rt: Runtime, root_bundle: MakeBundle, volume: Path) -> None:
    made = binding(in_userns(root_bundle()), volume, "idmap=uids=@1234-7-1#0-100008-1;gids=@1235-9-1")
    assert output(root_rt, made, OWNERS).split() == ["7:9", "8:65534"]


def test_a_joined_user_namespace_gives_its_map(
    root_rt: Runtime, root_bundle: MakeBundle, volume: Path
) -> None:
    pid = held(root_rt, in_userns(root_bundle()), "first")
    made = in_userns(root_bundle())
    set_namespace(made, "user", f"/proc/{pid}/ns/user")
    made.change(lambda config: [config["linux"].pop(name) for name in ("uidMappings", "gidMappings")])
    assert output(root_rt, binding(made, volume, "idmap"), OWNERS).split() == ["1234:1235", "0:0"]


def test_only_ridmap_maps_what_is_mounted_below(
    root_rt: Runtime, root_bundle: MakeBundle, volume: Path
) -> None:
    (volume / "below").mkdir()
    with own_mounts() as host:
        host.sh('mount -t tmpfs -o mode=777 below "$1/below"; touch "$1/below/file"', str(volume))
        for word, owner in (("idmap", "65534"), ("ridmap", "0")):
            made = binding(in_userns(root_bundle()), volume, word)
            said = output(host.runtime(root_rt), made, "stat -c %u /v/below/file")
            assert said == owner, word


def test_mounts_of_the_container_stay_in_it(root_rt: Runtime, root_bundle: MakeBundle, volume: Path) -> None:
    """The copy is made where the host's shared mounts are: it must not be one of their group."""
    with own_mounts("shared") as host:
        host.sh('mount --bind "$1" "$1"; mount --make-rshared "$1"', str(volume))
        made = binding(root_bundle(), volume, uidMappings=(0, 0, 9), gidMappings=(0, 0, 9))
        script = "cat /proc/self/mountinfo"
        found = mounts_of(output(host.runtime(root_rt), made, script))["/v"]
        assert "shared" not in found.propagation


def test_a_filesystem_that_cannot_is_named(root_rt: Runtime, root_bundle: MakeBundle, place: Path) -> None:
    made = binding(root_bundle(), Path("/proc"), uidMappings=(0, 0, 9), gidMappings=(0, 0, 9))
    error = refusal(root_rt, made)
    assert "mounts[" in error and "does the filesystem support mapped ids" in error


def test_no_process_is_left_that_held_the_map(
    root_rt: Runtime, root_bundle: MakeBundle, volume: Path
) -> None:
    def holders() -> list[str]:
        """Processes whose map is the one of this test alone."""
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                if Path(f"/proc/{entry}/uid_map").read_text().split() == ["7", "54321", "9"]:
                    found.append(entry)
            except OSError:
                continue
        return found

    made = binding(root_bundle(), volume, uidMappings=(7, 54321, 9), gidMappings=(7, 54321, 9))
    output(root_rt, made, "true")
    assert holders() == []
