# An ordinary user's session with rt, as it is typed.

load helper

setup() {
    if [ "$PLAIN_USER" = root ]; then
        skip "needs an ordinary user"
    fi
    log_in "$PLAIN_USER"
    OPTIONS=--rootless
}

teardown() {
    log_out
}

@test "the version names rt and the specification it follows" {
    ok rt --version
    has "$output" "rt version "
    has "$output" "spec: 1."
    is "$errors" ""
}

@test "help lists the commands, and tells of each" {
    ok rt --help
    local command
    for command in create run start state kill delete list spec features plan; do
        has "$output" "  $command "
        ok rt help "$command"
        has "$output" "Usage: rt $command"
        ok rt --help
    done
    ok rt help run
    has "$output" "--pid-file"
}

@test "features are JSON that names the runtime-spec versions" {
    ok rt features
    as_user python3 -c 'import json, sys; f = json.loads(sys.argv[1]); assert f["ociVersionMin"] == "1.0.0"; assert f["linux"]' "$output"
}

@test "spec --rootless writes a config for this user and no other, once" {
    ok rt spec --rootless
    is "$output$errors" ""
    has "$(cat "$WORK/config.json")" "\"hostID\": $(id -u "$PLAIN_USER")"
    type_in rt spec --rootless
    [ "$status" != 0 ]
    has "$errors" "File config.json exists. Remove it first"
}

@test "plan shows the operations and starts nothing" {
    bundle touch /ran
    ok rt plan
    has "$output" "change the root to the rootfs"
    [ ! -e "$WORK/rootfs/ran" ]
    ok rt plan --format json
    as_user python3 -c 'import json, sys; json.loads(sys.argv[1])' "$output"
    [ ! -e "$STATE" ]
}

@test "run gives a command's output, errors and exit code, and leaves nothing" {
    bundle sh -c 'echo to stdout; echo to stderr >&2; exit 7'
    RT run one
    is "$status" 7
    is "$output" "to stdout"
    is "$errors" "to stderr"
    RT_ok list -q
    is "$output" ""
    is "$(ls "$STATE")" ""
}

@test "a program killed by a signal gives 128 and its number" {
    bundle sh -c 'echo ready; sleep 1000'
    type_in sh -c "rt --root $STATE run one >out & rt=\$!
        while ! grep -q ready out; do sleep 0.05; done; rt --root $STATE kill one KILL; wait \$rt"
    is "$status" 137
}

@test "a signal to rt reaches the program" {
    bundle sh -c 'trap "echo caught; exit 5" TERM; echo ready; while :; do sleep 0.1; done'
    type_in sh -c "rt --root $STATE run one >out & rt=\$!
        while ! grep -q ready out; do sleep 0.05; done; kill -TERM \$rt; wait \$rt"
    is "$status" 5
    has "$(cat "$WORK/out")" caught
}

@test "inside, the user is root, alone with pid 1, under the container's host name" {
    bundle sh -c 'id -u; hostname; echo $$; cat /proc/self/uid_map; ls -d /proc/[0-9]* | wc -l'
    edit "c['hostname'] = 'inside'"
    RT_ok run one
    set -- $output
    is "$1 $2 $3" "0 inside 1"
    is "$4 $5 $6" "0 $(id -u "$PLAIN_USER") 1"
    [ "$7" -le 4 ]
}

@test "a file made inside belongs to the user outside" {
    bundle sh -c 'echo hello >/tmp/file'
    RT_ok run one
    is "$(stat -c %U "$WORK/rootfs/tmp/file")" "$PLAIN_USER"
}

@test "a read-only root file system, as spec writes it, cannot be written to" {
    bundle touch /file
    edit "c['root']['readonly'] = True"
    RT run one
    [ "$status" != 0 ]
    has "$errors" "Read-only file system"
}

@test "a megabyte through stdin and stdout comes out as it went in" {
    bundle cat
    head -c 1048576 /dev/urandom >"$WORK/in"
    chmod 644 "$WORK/in"
    RT_ok run one <"$WORK/in"
    cmp "$WORK/in" "$BATS_TEST_TMPDIR/out"
}

@test "yes into head ends, and so does its container" {
    bundle yes
    type_in sh -c "rt --root $STATE run one | head -n 3"
    is "$status" 0
    is "$output" $'y\ny\ny'
    RT_ok list -q
    is "$output" ""
}

@test "run -d returns at once, and the pid file names the container's process" {
    bundle sleep 1000
    RT_ok run -d --pid-file pid one
    wait_until one running
    has "$output" "\"pid\": $(cat "$WORK/pid")"
    RT_ok list
    has "$output" one
    has "$output" running
    RT_ok kill one KILL
    wait_until one stopped
    RT_ok delete one
    RT state one
    [ "$status" != 0 ]
    is_gone "$(cat "$WORK/pid")"
}

@test "create, state, start, list, kill, delete: a container's whole life" {
    bundle sh -c 'trap "exit 0" TERM; touch /tmp/started; while :; do sleep 0.1; done'
    RT_ok create one
    RT_ok state one
    has "$output" '"status": "created"'
    has "$output" "\"bundle\": \"$WORK\""
    RT_ok start one
    wait_until one running
    RT_ok list --format json
    has "$output" '"id":"one"'
    RT delete one
    [ "$status" != 0 ]
    wait_until one running
    ok sh -c 'until [ -e rootfs/tmp/started ]; do sleep 0.05; done'
    RT_ok kill one TERM
    wait_until one stopped
    RT_ok delete one
    RT_ok list -q
    is "$output" ""
    is "$(ls "$STATE")" ""
}

@test "delete --force ends a running container, and a created one, and minds none that is not there" {
    bundle sleep 1000
    RT_ok run -d one
    RT_ok create two
    RT_ok delete --force one
    RT_ok delete --force two
    RT_ok delete --force never
    RT_ok list -q
    is "$output" ""
}

@test "without --root the state is kept in XDG_RUNTIME_DIR/rt" {
    bundle sleep 1000
    ok rt run -d one
    [ -d "$PLAIN_RUNTIME/rt/one" ]
    ok rt delete --force one
    [ ! -e "$PLAIN_RUNTIME/rt/one" ]
}

@test "two containers of one bundle do not see each other" {
    bundle sh -c 'hostname; ls -d /proc/[0-9]* | wc -l; sleep 1000'
    RT_ok run -d one
    RT_ok run -d two
    RT_ok list -q
    is "$output" $'one\ntwo'
}

@test "an id that is taken, or unknown, is one line" {
    bundle sleep 1000
    RT_ok create one
    RT create one
    is "$status" 1
    has "$errors" "rt: "
    has "$errors" one
    RT_ok state one
    RT start never
    is "$status" 1
    has "$errors" "does not exist"
}

@test "a program that is not there is named, and nothing is left" {
    bundle no-such-program
    RT run one
    [ "$status" != 0 ]
    has "$errors" no-such-program
    is "$(ls "$STATE")" ""
}

@test "a directory that is no bundle is named, with what to do" {
    RT run one
    is "$status" 1
    has "$errors" config.json
    has "$errors" "hint: "
    [ ! -e "$STATE/one" ]
}

@test "--rootfs-from-host makes a bundle that runs a shell" {
    ok rt spec --rootless --rootfs-from-host
    program sh -c 'echo $((6 * 7))'
    RT_ok run one
    is "$output" 42
}

@test "spec --from makes an ordinary user's config of a privileged one" {
    make_rootfs
    ok rt spec
    as_user mv config.json privileged.json
    ok rt spec --from privileged.json --rootless
    program id -u
    RT_ok run one
    is "$output" 0
}

@test "with --idmap full, files and processes may belong to other users inside" {
    need_subids
    OPTIONS="--rootless --idmap full"
    bundle sh -c 'touch /tmp/file; chown 1000:1000 /tmp/file; stat -c %u:%g /tmp/file; rm /tmp/file'
    edit "for s in c['process']['capabilities'].values(): s.append('CAP_CHOWN')"
    RT_ok run one
    is "$output" 1000:1000
    program id
    edit "c['process']['user'] = {'uid': 1000, 'gid': 1001, 'additionalGids': [5]}"
    RT_ok run one
    has "$output" uid=1000
    has "$output" gid=1001
    has "$output" groups=
    has "$output" 5
}
