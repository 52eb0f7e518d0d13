"""What podman lets a container have: rights, limits, devices, mounts, ids."""

from __future__ import annotations

import os

from lab.engines import NotHere, case
from lab.podman import IMAGE, Podman

STATUS = "/proc/self/status"


def _status(podman: Podman, field: str, *options: str) -> str:
    line = podman.run(*options, "--", "grep", f"^{field}:", STATUS)
    return line.partition(":")[2].strip()


@case
def test_capabilities_are_dropped_and_added(podman: Podman) -> None:
    assert int(_status(podman, "CapEff", "--cap-drop=all"), 16) == 0
    assert int(_status(podman, "CapEff", "--cap-drop=all", "--cap-add=net_admin"), 16) == 1 << 12
    with_user = _status(podman, "CapAmb", "--cap-drop=all", "--cap-add=net_raw", "--user=1000")
    assert int(with_user, 16) == 1 << 13


@case
def test_the_default_capabilities(podman: Podman) -> None:
    assert int(_status(podman, "CapEff"), 16) == 0xA80425FB


@case
def test_no_new_privileges(podman: Podman) -> None:
    assert _status(podman, "NoNewPrivs", "--security-opt=no-new-privileges") == "1"
    assert _status(podman, "NoNewPrivs") == "0"


@case
def test_seccomp_filters_unless_unconfined(podman: Podman) -> None:
    assert _status(podman, "Seccomp") == "2"
    assert _status(podman, "Seccomp", "--security-opt=seccomp=unconfined") == "0"


@case
def test_a_seccomp_profile_of_ones_own(podman: Podman) -> None:
    profile = podman.base / "work" / f"{podman.name()}.json"
    rule = '{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}'
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [%s]}' % rule)  # noqa: UP031
    done = podman("run", "--rm", f"--security-opt=seccomp={profile}", IMAGE, "mkdir", "/x")
    assert done.code == 1 and "not implemented" in done.err, str(done)


@case
def test_paths_are_masked_unless_unmasked(podman: Podman) -> None:
    assert podman.run("sh", "-c", "cat /proc/kcore /proc/keys | wc -c") == "0"
    assert podman("run", "--rm", IMAGE, "sh", "-c", "echo 1 > /proc/sysrq-trigger").code != 0
    assert podman.run("--security-opt=mask=/etc/group", "--", "cat", "/etc/group") == ""
    assert "kcore" not in podman.run("--security-opt=unmask=ALL", "--", "cat", "/proc/self/mountinfo")


@case
def test_signals_are_as_they_should_be(podman: Podman) -> None:
    for field in ("SigBlk", "SigIgn"):
        assert int(_status(podman, field), 16) == 0


@case
def test_nothing_else_is_open(podman: Podman) -> None:
    assert podman.run("sh", "-c", "ls /proc/self/fd").split() == ["0", "1", "2", "3"]  # ls's own directory


@case
def test_privileged(podman: Podman) -> None:
    assert int(_status(podman, "CapEff", "--privileged"), 16) > 0xA80425FB
    podman.run(
        "--privileged", "--", "sh", "-c", "mount -t tmpfs none /mnt || mkdir /m && mount -t tmpfs none /m"
    )


@case
def test_limits_of_resources(podman: Podman) -> None:
    limits = ("--ulimit=nofile=100:200", "--ulimit=nproc=1000:1000")
    assert podman.run(*limits, "--", "sh", "-c", "ulimit -n; ulimit -Hn") == "100\n200"


@case
def test_the_limit_of_memory(podman: Podman) -> None:
    podman.needs_cgroups()
    shown = podman.run("--memory=64m", "--", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    assert int(shown) == 64 << 20


@case
def test_limits_of_processes_and_cpu(podman: Podman) -> None:
    podman.needs_cgroups()
    options = ("--pids-limit=33", "--cpus=0.5", "--cpu-shares=512", "--cpuset-cpus=0")
    files = ("pids/pids.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.shares", "cpuset/cpuset.cpus")
    shown = podman.run(*options, "--", "cat", *(f"/sys/fs/cgroup/{file}" for file in files))
    assert shown.split() == ["33", "50000", "512", "0"]


@case
def test_too_much_memory_ends_a_container(podman: Podman) -> None:
    podman.needs_cgroups()
    name = podman.name()
    done = podman("run", "--name", name, "--memory=16m", IMAGE, "sh", "-c", "tail /dev/zero")
    assert done.code == 137, str(done)
    podman.ok("rm", name)


@case
def test_the_cgroups_of_the_host_are_seen(podman: Podman) -> None:
    shown = podman.run("--cgroupns=host", "--", "cat", "/proc/self/cgroup")
    assert podman.rootless or "/libpod_parent/" in shown, shown


@case
def test_the_oom_score(podman: Podman) -> None:
    assert podman.run("--oom-score-adj=500", "--", "cat", "/proc/self/oom_score_adj") == "500"


@case
def test_a_parameter_of_the_kernel(podman: Podman) -> None:
    shown = podman.run("--sysctl=net.ipv4.ip_forward=1", "--", "cat", "/proc/sys/net/ipv4/ip_forward")
    assert shown == "1"
    assert podman.run("--sysctl=kernel.msgmax=9000", "--", "cat", "/proc/sys/kernel/msgmax") == "9000"


@case
def test_a_device_of_the_host(podman: Podman) -> None:
    assert podman.run("--device=/dev/fuse", "--", "stat", "-c", "%t:%T", "/dev/fuse") == "a:e5"
    assert podman.run("--device=/dev/zero:/dev/nought:r", "--", "head", "-c", "3", "/dev/nought") == "\0\0\0"


@case
def test_the_default_devices(podman: Podman) -> None:
    names = podman.run("ls", "/dev").split()
    assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin"} <= set(
        names
    )


@case
def test_a_tmpfs(podman: Podman) -> None:
    shown = podman.run(
        "--tmpfs=/t:size=1m,mode=700", "--", "sh", "-c", "grep ' /t ' /proc/mounts; stat -c %a /t"
    )
    assert "size=1024k" in shown and shown.endswith("700"), shown
    assert "passwd" in podman.run("--tmpfs=/etc", "--", "ls", "/etc")  # tmpcopyup


@case
def test_a_read_only_rootfs(podman: Podman) -> None:
    assert "Read-only" in podman("run", "--rm", "--read-only", IMAGE, "touch", "/x").err
    assert podman.run("--read-only", "--", "sh", "-c", "touch /tmp/x /run/x; echo y") == "y"
    assert (
        "Read-only"
        in podman("run", "--rm", "--read-only", "--read-only-tmpfs=false", IMAGE, "touch", "/tmp/x").err
    )


@case
def test_volumes(podman: Podman) -> None:
    volume = podman.name()
    podman.ok("volume", "create", volume)
    podman.run("-v", f"{volume}:/data", "--", "sh", "-c", "echo kept > /data/file")
    assert podman.run("-v", f"{volume}:/data:ro", "--", "cat", "/data/file") == "kept"
    assert podman("run", "--rm", "-v", f"{volume}:/data:ro", IMAGE, "touch", "/data/x").code == 1
    podman.ok("volume", "rm", volume)


@case
def test_a_directory_of_the_host(podman: Podman) -> None:
    work = podman.base / "work"
    name = podman.name()
    podman.run("-v", f"{work}:/host", "--", "sh", "-c", f"echo inside > /host/{name}")
    assert (work / name).read_text() == "inside\n"
    mount = f"--mount=type=bind,src={work},dst=/host,ro,bind-propagation=rslave"
    assert podman("run", "--rm", mount, IMAGE, "touch", "/host/y").code == 1


@case
def test_a_volume_with_flags(podman: Podman) -> None:
    work = podman.base / "work"
    shown = podman.run("-v", f"{work}:/host:nosuid,nodev,noexec,z", "--", "grep", " /host ", "/proc/mounts")
    assert all(word in shown for word in ("nosuid", "nodev", "noexec")), shown


@case
def test_shared_memory_of_a_size(podman: Podman) -> None:
    assert "size=2048k" in podman.run("--shm-size=2m", "--", "grep", " /dev/shm ", "/proc/mounts")


@case
def test_the_name_of_the_host(podman: Podman) -> None:
    assert podman.run("--hostname=other.example", "--", "hostname") == "other.example"
    assert podman.run("--uts=host", "--", "hostname") == os.uname().nodename


@case
def test_namespaces_of_the_host(podman: Podman) -> None:
    for option, file in (("--pid=host", "pid"), ("--network=host", "net")):
        assert podman.run(option, "--", "readlink", f"/proc/self/ns/{file}") == os.readlink(
            f"/proc/self/ns/{file}"
        )


@case
def test_namespaces_of_another_container(podman: Podman) -> None:
    name = podman.start("--ipc=shareable", "sleep", "100")
    shared = [f"--{each}=container:{name}" for each in ("pid", "ipc", "network")]
    spaces = [f"/proc/self/ns/{each}" for each in ("pid", "ipc", "net")]
    show = f"for n in {' '.join(spaces)}; do readlink $n; done"
    assert podman.run(*shared, "--", "sh", "-c", show) == podman.ok("exec", name, "sh", "-c", show)
    assert "sleep 100" in podman.run(*shared, "--", "ps")
    podman.ok("rm", "-f", "-t", "0", name)


@case
def test_the_ids_of_an_ordinary_user_are_kept(podman: Podman) -> None:
    keep = "--userns=keep-id" if podman.rootless else "--userns=host"
    assert podman.run(keep, "--", "id", "-u") == str(podman.user.uid)
    if podman.rootless:
        name = podman.name()
        podman.run(keep, "-v", f"{podman.base}/work:/host", "--", "touch", f"/host/{name}")
        assert (podman.base / "work" / name).stat().st_uid == podman.user.uid


@case
def test_ids_of_a_range_of_ones_own(podman: Podman) -> None:
    shown = podman.run(
        "--uidmap=0:1000:500", "--gidmap=0:2000:600", "--", "cat", "/proc/self/uid_map", "/proc/self/gid_map"
    )
    assert [line.split() for line in shown.splitlines()] == [["0", "1000", "500"], ["0", "2000", "600"]]
    options = ("--uidmap=0:1000:500", "--gidmap=0:2000:600")
    assert podman.run(*options, "--", "sh", "-c", "touch /x; stat -c %u:%g /x /etc/passwd") == "0:0\n0:0"


@case
def test_ids_chosen_by_podman(podman: Podman) -> None:
    if not podman.rootless:
        raise NotHere("podman takes these from the account `containers`, which is not there")
    first = podman.run("--userns=auto:size=1024", "--", "cat", "/proc/self/uid_map")
    assert first.split()[0] == "0" and first.split()[2] == "1024", first


@case
def test_no_own_id_in_the_container(podman: Podman) -> None:
    if not podman.rootless:
        raise NotHere("podman knows it for ordinary users only")
    assert podman.run("--userns=nomap", "--", "id", "-u") == "0"


@case
def test_the_groups_of_the_user_are_kept(podman: Podman) -> None:
    assert podman("run", "--rm", "--group-add=keep-groups", IMAGE, "id").code == 0


@case
def test_annotations_and_labels(podman: Podman) -> None:
    assert podman.run("--annotation=a.b=c", "--label=x=y", "--", "echo", "x") == "x"


@case
def test_a_time_zone_and_a_stop_timeout(podman: Podman) -> None:
    assert podman("run", "--rm", "--timeout=1", IMAGE, "sleep", "100").code in (137, 255)


@case
def test_the_host_is_where_secrets_come_from(podman: Podman) -> None:
    name = podman.name()
    file = podman.base / "work" / f"{name}.secret"
    file.write_text("hush")
    podman.user.owns(file)
    podman.ok("secret", "create", name, str(file))
    assert podman.run(f"--secret={name}", "--", "cat", f"/run/secrets/{name}") == "hush"
    assert podman.run(f"--secret={name},type=env,target=S", "--", "sh", "-c", "echo $S") == "hush"
    podman.ok("secret", "rm", name)
