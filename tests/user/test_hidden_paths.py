"""What an ordinary user's container sees of /proc, /sys and /dev, and what is hidden from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import (
    bind,
    mount,
    mounts_of,
    output,
    refusal,
    told,
    with_mounts,
)
from lab.runtime import Runtime
from lab.users import User, can_make_users

MOUNTINFO = "cat /proc/self/mountinfo"
needs_root = pytest.mark.skipif(not can_make_users(), reason="root has to prepare the host's mounts")


# /proc, /sys, /dev


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_a_link_for_proc_or_sys_is_not_followed(
    name: str, rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    made = bundle()
    made.config["mounts"] = [mount("/proc", "proc", "proc")]
    if name == "sys":
        made.config["linux"]["namespaces"].append({"type": "network"})
        made.config["mounts"].append(mount("/sys", "sysfs", "sysfs"))
    made.write()
    (made.rootfs / name).rmdir()
    (made.rootfs / name).symlink_to("tmp")
    error = refusal(rt, made)
    assert f"/{name}" in error and "symbolic link" in error


def test_a_link_for_dev_stays_in_the_rootfs(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    made = bundle()
    (made.rootfs / "dev").rmdir()
    (made.rootfs / "dev").symlink_to("/run/dev")
    assert output(rt, made, "ls /run/dev/null && echo x > /dev/null && test -L /dev && echo ok").endswith(
        "ok"
    )


def test_a_link_into_proc_is_refused_as_a_destination(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    made = bundle()
    (made.rootfs / "trick").symlink_to("/proc/self/attr")
    error = refusal(rt, with_mounts(made, bind("/trick/exec", share / "file")))
    assert "mounts[7]: /trick/exec" in error
    assert "into /proc" in error or "No such" in error


@pytest.mark.parametrize(
    "place_in_proc", ["/proc/self/attr/exec", "/proc/sys", "/proc/1/mem", "/proc/../proc/sys"]
)
def test_a_destination_in_proc_is_refused(
    place_in_proc: str, rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    error = refusal(rt, with_mounts(bundle(), bind(place_in_proc, share / "file")))
    assert "mounts[7].destination" in error and "/proc/cpuinfo" in error


def test_only_proc_lies_on_proc(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    assert "only a proc filesystem" in refusal(rt, with_mounts(bundle(), bind("/proc", share)))
    assert "only a proc filesystem" in refusal(rt, with_mounts(bundle(), mount("/proc", "tmpfs", "tmpfs")))


def test_what_lxcfs_stands_in_for_can_be_bound(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    names = ["cpuinfo", "meminfo", "uptime", "loadavg"]
    made = with_mounts(bundle(), *[bind(f"/proc/{name}", share / "file") for name in names])
    files = " ".join(f"/proc/{name}" for name in names)
    assert output(rt, made, f"cat {files}").splitlines() == ["from the host"] * len(names)


def test_the_host_s_sys_is_read_only_all_the_way_down(rt: Runtime, bundle: MakeBundle) -> None:
    shown = mounts_of(output(rt, bundle(), MOUNTINFO))
    below = [made for point, made in shown.items() if (point + "/").startswith("/sys/")]
    assert below and all("ro" in made.options for made in below)
    script = "for dir in /sys/fs/cgroup /sys/fs/cgroup/*/; do mkdir $dir/x 2>/dev/null && echo MADE; done; "
    said = output(rt, bundle(), script + "mount -o remount,rw /sys 2>&1; true")
    assert "MADE" not in said and ("denied" in said or "permitted" in said)


@pytest.mark.covers("mounts[].type cgroup")
def test_a_mount_of_type_cgroup_shows_own_cgroups_read_only(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    made.config["mounts"] = [made.config["mounts"][0], mount("/cg", "cgroup", "cgroup", "ro", "nosuid")]
    made.write()
    said, _ = told(rt, made, "cat /proc/self/mountinfo; mkdir /cg/x /cg/*/x 2>/dev/null && echo MADE; true")
    assert "MADE" not in said
    shown = mounts_of(said)
    assert all(
        {"ro", "nosuid", "nodev", "noexec"} <= item.options for point, item in shown.items() if "/cg" in point
    )


# Masked and read-only paths


@pytest.mark.covers("linux.maskedPaths")
def test_masked_files_read_empty_and_masked_directories_are_empty(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    (made.rootfs / "secret").mkdir()
    (made.rootfs / "secret/inner").write_text("hidden")
    (made.rootfs / "password").write_text("hidden")
    made.config["linux"]["maskedPaths"] += ["/secret", "/password", "/not/there", "/etc/passwd/not"]
    script = "cat /password; ls -A /secret; echo x > /password; cat /password; touch /secret/x 2>&1; "
    script += "umount /password 2>&1; umount -l /secret 2>&1; true"
    lines = output(rt, made, script).splitlines()
    assert len(lines) == 3 and "Read-only" in lines[0]
    assert all("not permitted" in line or "nvalid" in line for line in lines[1:])
    assert (made.rootfs / "password").read_text() == "hidden"


def test_masks_cannot_be_taken_off_even_with_every_capability(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    (made.rootfs / "password").write_text("hidden")
    made.config["linux"]["maskedPaths"] = ["/password"]
    capabilities = made.config["process"]["capabilities"]
    for kind in capabilities:
        capabilities[kind] = ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]
    script = "umount -l /password 2>/dev/null; cat /password; "
    # A new mount namespace below: there the mask is locked to what it covers.
    script += "unshare -rm sh -c 'umount -l /password 2>/dev/null; cat /password'; true"
    said, _ = told(rt, made, script)
    assert "hidden" not in said.splitlines()[1:]


@pytest.mark.covers("linux.readonlyPaths")
def test_read_only_paths_keep_their_content(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    (made.rootfs / "data").mkdir()
    (made.rootfs / "data/file").write_text("kept\n")
    made.config["linux"]["readonlyPaths"] += ["/data", "/not/there"]
    lines = output(
        rt, made, "cat /data/file; touch /data/x 2>&1; echo x 2>&1 >/proc/sys/kernel/x; true"
    ).splitlines()
    assert lines[0] == "kept" and "Read-only" in lines[1]


def test_a_link_named_null_in_the_image_does_not_become_the_mask(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    (made.rootfs / "password").write_text("hidden\n")
    (made.rootfs / "dev/null").symlink_to("/password")
    made.config["mounts"] = [
        item for item in made.config["mounts"] if not item["destination"].startswith("/dev")
    ]
    made.config["linux"]["maskedPaths"] = ["/password"]
    made.write()
    done = rt("run", "--bundle", str(made.run("cat /password; stat -c %t:%T /password").path), "c")
    assert done.returncode != 0 or done.stdout.strip() == "1:3", (done.stdout, done.stderr)
    assert "hidden" not in done.stdout


def test_a_masked_link_hides_what_it_points_to_inside(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    (made.rootfs / "password").write_text("hidden\n")
    (made.rootfs / "link").symlink_to("/password")
    made.config["linux"]["maskedPaths"] = ["/link"]
    assert output(rt, made, "cat /password") == ""


@pytest.mark.covers("root.readonly")
def test_a_read_only_root_is_read_only_but_for_its_mounts(
    rt: Runtime, bundle: MakeBundle, share: Path
) -> None:
    made = with_mounts(bundle(), bind("/mnt", share), mount("/tmp", "tmpfs", "tmpfs"))
    made.config["root"]["readonly"] = True
    lines = output(rt, made, "touch /x 2>&1; touch /mnt/x /tmp/x /dev/shm/x && echo made").splitlines()
    assert "Read-only" in lines[0] and lines[1] == "made"


# Without pivot_root


@pytest.mark.covers("run --no-pivot")
def test_no_pivot_leaves_no_proc_or_sys_of_the_host_behind(rt: Runtime, bundle: MakeBundle) -> None:
    script = "cat /proc/self/mountinfo; ls / | tr '\\n' ' '"
    said = output(rt, bundle(), script, "--no-pivot")
    assert said.splitlines()[-1].split() == sorted(path.name for path in bundle().rootfs.iterdir())
    listed, last = said.rsplit("\n", 1)
    assert last
    shown = mounts_of(listed)
    assert shown["/proc"].root == "/"


@needs_root
def test_no_pivot_covers_the_host_s_proc(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("run", "--no-pivot", "--detach", "--bundle", str(bundle("exec sleep 1000").path), "c")
    pid = rt.state("c")["pid"]
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    own = [line for line in lines if " - proc " in line or " - sysfs " in line]
    # The root is the rootfs; of the host's own mounts none that is a whole proc or sysfs can be reached.
    assert all(line.split()[4].startswith(("/proc", "/sys")) for line in own)


@pytest.mark.covers("linux.rootfsPropagation")
def test_no_pivot_with_private_propagation_is_refused(rt: Runtime, bundle: MakeBundle) -> None:
    made: Bundle = bundle()
    made.config["linux"]["rootfsPropagation"] = "private"
    made.write()
    assert "not safe without pivot_root" in refusal(rt, made, "--no-pivot")
