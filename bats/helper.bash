# What the files share: somebody logs in, has a directory, makes bundles, types commands, looks at the answers.

# Everything after this is typed by this user (root or $PLAIN_USER), in a directory of their own.
log_in() {
    WHO=$1
    WORK=$(mktemp -d /tmp/rt-bats.XXXXXX)
    STATE=$WORK/state
    chmod 755 "$WORK"
    if [ "$WHO" != "$(id -un)" ]; then
        chown "$WHO:" "$WORK"
    fi
}

log_out() {
    end_containers
    rm -rf -- "$WORK" 2>/dev/null || true
}

end_containers() {
    local entry
    for entry in "$STATE"/* "$PLAIN_RUNTIME"/rt/*; do
        if [ -d "$entry" ]; then
            type_in rt --root "$(dirname "$entry")" delete --force "$(basename "$entry")"
        fi
    done
}

# One command of the user's, in $WORK (or where it says `in_dir`), with a login's variables and nothing of the test's.
# bats' own descriptor 3 is closed: a container would keep it, and bats would wait for it.
as_user() {
    local home=$PLAIN_HOME become=()
    if [ "$WHO" = root ]; then
        home=/root
    fi
    if [ "$WHO" != "$(id -un)" ]; then
        become=(setpriv --reuid "$WHO" --regid "$(id -g "$WHO")" --init-groups)
    fi
    (
        cd "${DIR:-$WORK}" &&
            exec timeout --kill-after=5 "${LIMIT:-60}" "${become[@]}" env -i HOME="$home" USER="$WHO" LANG=C.UTF-8 \
                PATH="${RT%/*}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" XDG_RUNTIME_DIR="$PLAIN_RUNTIME" "$@"
    ) 3>&-
}

# Types a command: $status, $output and $errors hold what came of it. Through files, not pipes like bats' `run`:
# a created or detached container keeps them, and a pipe would be waited for. Its stdin is this function's.
type_in() {
    local files=${BATS_TEST_TMPDIR:-$BATS_FILE_TMPDIR} # there is no test in setup_file
    status=0
    as_user "$@" >"$files/out" 2>"$files/err" || status=$?
    output=$(tr -d '\0' <"$files/out")
    errors=$(tr -d '\0' <"$files/err")
}

# The same, and it must succeed.
ok() {
    type_in "$@"
    if [ "$status" != 0 ]; then
        printf '%s\n' "\`$*\` ended with $status:" "$output" "$errors" >&2
        return 1
    fi
}

# The command with the state root of this test.
RT() {
    type_in rt --root "$STATE" "$@"
}

RT_ok() {
    ok rt --root "$STATE" "$@"
}

# is GOT EXPECTED; has TEXT PIECE; has_not TEXT PIECE: comparisons that show what they compared.
is() {
    [ "$1" = "$2" ] || { printf 'got:      %s\nexpected: %s\nerrors:   %s\n' "$1" "$2" "${errors-}" >&2 && return 1; }
}

has() {
    case $1 in *"$2"*) ;; *) printf 'in:  %s\nnot: %s\nerrors: %s\n' "$1" "$2" "${errors-}" >&2 && return 1 ;; esac
}

has_not() {
    case $1 in *"$2"*) printf 'in: %s\nyet: %s\n' "$1" "$2" >&2 && return 1 ;; esac
}

# Waits until a container has a status.
wait_until() {
    local try
    for try in $(seq 1200); do
        RT_ok state "$1"
        case $output in *"\"status\": \"$2\""*) return ;; esac
        sleep 0.05
    done
    printf '%s\n' "$1 is not $2 after a minute:" "$output" >&2
    return 1
}

# Whether a process has ended; the machine's init may take its time to collect it.
is_gone() {
    local line
    ! line=$(cat "/proc/$1/stat" 2>/dev/null) || has "$line" ") Z "
}

need_busybox() {
    if [ ! -x /bin/busybox ] || ldd /bin/busybox >/dev/null 2>&1; then
        skip "needs a static busybox: apt install busybox-static"
    fi
}

# A root file system in rootfs/, from the host's busybox.
make_rootfs() {
    need_busybox
    as_user sh -ec 'mkdir -p rootfs/bin rootfs/etc rootfs/tmp
        cp /bin/busybox rootfs/bin/
        echo root:x:0:0:root:/root:/bin/sh >rootfs/etc/passwd
        python3 -c "import os, sys
for name in sys.argv[1:]:
    if name != \"busybox\":
        os.symlink(\"busybox\", \"rootfs/bin/\" + name)" $(/bin/busybox --list)'
}

# edit STATEMENT: changes config.json; in the statement c is the config.
edit() {
    as_user python3 -c 'import json, sys
with open("config.json") as file:
    c = json.load(file)
exec(sys.argv[1])
with open("config.json", "w") as file:
    json.dump(c, file, indent="\t")' "$1"
}

# bundle COMMAND...: rootfs/ and config.json that run this without a terminal. OPTIONS: those of `rt spec`.
bundle() {
    make_rootfs
    # shellcheck disable=SC2086 # a list
    ok rt spec $OPTIONS
    program "$@"
}

# program COMMAND...: what the bundle runs from now on.
program() {
    local words
    words=$(python3 -c 'import sys; print(sys.argv[1:])' "$@")
    edit "c['process'].update(terminal=False, args=$words); c['root']['readonly'] = False"
}

# on_terminal COMMAND [SHOWN TYPED]...: runs the command line on a terminal, which is script(1); when the screen shows
# a text, types the next. $output is the screen at the end, $status the command's.
on_terminal() {
    local command=$1
    shift
    : >"$BATS_TEST_TMPDIR/out"
    status=0
    _type_when_shown "$@" |
        as_user script --quiet --return --flush --command "$command" /dev/null >"$BATS_TEST_TMPDIR/out" 2>&1 || status=$?
    output=$(tr -d '\r\0' <"$BATS_TEST_TMPDIR/out")
    errors=
}

_type_when_shown() {
    local try
    while [ $# -gt 0 ]; do
        for try in $(seq 600); do
            if grep -qaF -e "$1" "$BATS_TEST_TMPDIR/out"; then
                break
            fi
            sleep 0.1
        done
        printf '%s' "$2"
        shift 2
    done
}

# Whether the user was granted subordinate ids, and the helpers are there.
need_subids() {
    local name=$PLAIN_USER file
    for file in /etc/subuid /etc/subgid; do
        grep -q "^\($name\|$(id -u "$name")\):" "$file" 2>/dev/null || skip "needs a range for $name in $file"
    done
    command -v newuidmap >/dev/null || skip "needs newuidmap: apt install uidmap"
}
