# Root's session with rt: no user namespace, devices by mknod, a cgroup where one can be had.

load helper

setup() {
    if [ "$(id -u)" != 0 ]; then
        skip "needs root"
    fi
    log_in root
    OPTIONS=
}

teardown() {
    if [ "$(id -u)" = 0 ]; then
        log_out
    fi
}

@test "root runs a command in the user namespace of the host" {
    bundle sh -c 'readlink /proc/self/ns/user; id -u; hostname; exit 3'
    RT run one
    is "$status" 3
    is "$errors" ""
    set -- $output
    is "$1" "$(readlink /proc/self/ns/user)"
    is "$2" 0
}

@test "root's container has real devices of its own" {
    bundle sh -c 'for name in null zero full random urandom tty; do [ -c /dev/$name ] || exit 1; done
        stat -c %t:%T /dev/null; grep -c " /dev/null " /proc/mounts; head -c 4 /dev/zero | wc -c'
    RT run one
    is "$output" $'1:3\n0\n4'
    is "$status" 0
}

@test "root creates, starts, kills and deletes" {
    bundle sleep 1000
    RT_ok create --pid-file pid one
    RT_ok state one
    has "$output" '"status": "created"'
    RT_ok start one
    wait_until one running
    has "$output" "\"pid\": $(cat "$WORK/pid")"
    RT_ok list
    has "$output" one
    RT_ok kill one KILL
    wait_until one stopped
    RT_ok delete one
    is "$(ls "$STATE")" ""
}

@test "root's container leaves no mount and no cgroup behind" {
    bundle sleep 1000
    local mounts
    mounts=$(grep -c "$WORK" /proc/self/mountinfo || true) # others mount elsewhere meanwhile
    RT_ok run -d --pid-file pid gone
    cp "/proc/$(cat "$WORK/pid")/cgroup" "$WORK/cgroup"
    RT_ok delete --force gone
    is "$(grep -c "$WORK" /proc/self/mountinfo || true)" "$mounts"
    local line path
    while IFS=: read -r _ _ path; do
        for line in /sys/fs/cgroup"$path" /sys/fs/cgroup/*"$path"; do
            case $path in *gone*) [ ! -e "$line" ] ;; esac
        done
    done <"$WORK/cgroup"
}

@test "root's container keeps the capabilities of its config and no others" {
    bundle grep CapEff /proc/self/status
    RT_ok run one
    has "$output" 0000000020000420
}

@test "root runs a program as the user that the config names" {
    bundle id
    edit "c['process']['user'] = {'uid': 1234, 'gid': 1234}"
    RT_ok run one
    has "$output" uid=1234
}
