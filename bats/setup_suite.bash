# Once for the whole run: the command under test, and the ordinary user who types it.
#
# Run by an ordinary user, that one types. Run by root, a fresh user does, and is gone afterwards.

setup_suite() {
    local here=$BATS_TEST_DIRNAME
    export RT=${RT:-$here/../build/rt}
    RT=$(realpath -- "$RT")
    if [ ! -x "$RT" ]; then
        echo "$RT is not built: make build" >&2
        return 1
    fi
    export PLAIN_USER PLAIN_HOME PLAIN_RUNTIME MADE_USER=
    PLAIN_USER=$(id -un)
    if [ "$(id -u)" = 0 ]; then
        MADE_USER=rtbats$$
        # The comment is how tools/lanes.py knows whom it may remove when a run was cut short.
        make_user || return 1
        PLAIN_USER=$MADE_USER
    fi
    PLAIN_HOME=$(getent passwd "$PLAIN_USER" | cut -d: -f6)
    # Not the user's own /run/user/UID: that may not exist, and holds other things.
    PLAIN_RUNTIME=$(mktemp -d /tmp/rt-bats-runtime.XXXXXX)
    if [ -n "$MADE_USER" ]; then
        chown "$MADE_USER:" "$PLAIN_RUNTIME"
    fi
}

# Tries again while another test run has the files locked.
make_user() {
    local try said=
    for try in $(seq 240); do
        said=$(useradd --create-home --shell /bin/sh --comment "made by the tests of rt" "$MADE_USER" 2>&1 3>&-) && return
        case $said in *lock*) sleep 0.25 ;; *) break ;; esac
    done
    printf '%s\n' "$said" >&2
    return 1
}

teardown_suite() {
    rm -rf -- "$PLAIN_RUNTIME"
    if [ -n "$MADE_USER" ]; then
        pkill -KILL -u "$MADE_USER" || true
        userdel --remove "$MADE_USER" 2>/dev/null || true
    fi
}
