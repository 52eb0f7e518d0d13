# A Debian system as an ordinary user's container, with all the ids that /etc/subuid and /etc/subgid grant.
#
# The tree is made by mmdebstrap, once on a machine (/var/tmp/rt-tests-minbase-*.tar), and is unpacked by rt itself:
# its files belong to the ids of the container.

load helper

# The capabilities a system's package tools and su need.
CAPABILITIES='[f"CAP_{name}" for name in "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW \
SETFCAP SETGID SETPCAP SETUID SYS_CHROOT".split()]'

setup_file() {
    export NO_TREE='' FILE_WORK=''
    if [ "$PLAIN_USER" = root ]; then
        NO_TREE="needs an ordinary user"
    elif ! NO_TREE=$(tell_missing); then
        return
    elif ! NO_TREE=$(make_tar); then
        return
    fi
    export TAR=$NO_TREE
    NO_TREE=
    log_in "$PLAIN_USER"
    FILE_WORK=$WORK
    as_user mkdir tool debian debian/rootfs
    use_tool tar -x -f - -C /tree
    DIR=$WORK/tool LIMIT=300 RT_ok run unpack <"$TAR"
}

teardown_file() {
    if [ -n "$FILE_WORK" ]; then
        enter
        DIR=$WORK/tool use_tool sh -c 'rm -rf /tree/*'
        DIR=$WORK/tool LIMIT=300 RT run remove
        log_out
    fi
}

setup() {
    if [ -n "$NO_TREE" ]; then
        skip "$NO_TREE"
    fi
    enter
    DIR=$WORK/debian
    ok rm -f config.json
    ok rt spec --rootless --idmap full
    edit "c['process']['noNewPrivileges'] = False"
}

teardown() {
    if [ -n "$FILE_WORK" ]; then
        end_containers
    fi
}

# The user and the directory that setup_file made.
enter() {
    WHO=$PLAIN_USER WORK=$FILE_WORK STATE=$FILE_WORK/state
}

# Says what keeps this machine from having a tree and from mapping ids; fails then.
tell_missing() {
    (
        skip() { echo "$*"; exit 1; }
        need_busybox
        need_subids
        command -v mmdebstrap >/dev/null || skip "needs mmdebstrap: apt install mmdebstrap"
    )
}

# Prints the name of the tree's archive; or prints why there is none, and fails.
make_tar() {
    local suite tar problems
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
    tar=/var/tmp/rt-tests-minbase-$suite-$(dpkg --print-architecture)-$(id -u).tar
    # Anyone may put a file there: only one of our own is believed.
    if [ ! -O "$tar" ] || [ -h "$tar" ]; then
        problems=$(timeout 400 mmdebstrap --quiet --variant=minbase --skip=output/dev --format=tar "$suite" "$tar.$$" 2>&1 3>&-) || {
            rm -f -- "$tar.$$"
            echo "mmdebstrap could not make a tree: $(printf '%s' "$problems" | tail -n 1)"
            return 1
        }
        mv -f -- "$tar.$$" "$tar"
    fi
    echo "$tar"
}

# Makes or changes the bundle in tool/: busybox with every id, and the Debian tree in /tree.
use_tool() {
    local DIR=$WORK/tool
    if [ ! -e "$DIR/config.json" ]; then
        make_rootfs
        ok rt spec --rootless --idmap full
        as_user mkdir rootfs/tree
        edit "c['process']['capabilities'] = dict.fromkeys(('bounding', 'effective', 'permitted'), $CAPABILITIES)"
        edit "c['mounts'].append({'destination': '/tree', 'source': '$WORK/debian/rootfs', 'options': ['rbind']})"
    fi
    program "$@"
}

# in_debian SCRIPT: runs it in the tree by sh -e; it must succeed.
in_debian() {
    program sh -ec "$1"
    LIMIT=120 RT_ok run "c$BATS_TEST_NUMBER"
}

@test "in a Debian tree the user is root, and every granted id is there" {
    in_debian 'id; . /etc/os-release; echo "$ID"; cat /proc/self/uid_map'
    has "$output" "uid=0(root) gid=0(root)"
    has "$output" debian
    [ "$(grep -c '^ *[0-9]' <<<"$output")" -ge 2 ]
}

@test "files of the tree belong to the users that Debian gave them to" {
    in_debian 'stat -c %U:%G /bin/sh /var/mail /var/cache/apt/archives/partial; stat -c %a /usr/bin/su'
    is "$output" $'root:root\nroot:mail\n_apt:root\n4755'
}

@test "a user is added, owns a home, and su becomes this user" {
    in_debian 'useradd --create-home --shell /bin/sh carol
        stat -c %U:%G /home/carol
        su - carol -c "id -un; touch mine; stat -c %U mine"
        grep -c ^carol: /etc/subuid || true
        userdel --remove carol'
    is "$(head -n 3 <<<"$output")" $'carol:carol\ncarol\ncarol'
}

@test "a set-uid program serves the added user as root" {
    in_debian 'useradd dave; su dave -c "id -u; passwd -S dave"; userdel dave'
    has "$output" "dave L"
    has_not "$(head -n 1 <<<"$output")" 0$'\n'
}

# Builds a package of its own, whose script hands a file to another user.
BUILD='cd /tmp
    mkdir -p greeting/DEBIAN greeting/usr/bin
    printf "#!/bin/sh\necho hello from a package\n" >greeting/usr/bin/greeting
    chmod 755 greeting/usr/bin/greeting
    printf "Package: greeting\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: says hello\n" \
        >greeting/DEBIAN/control
    printf "#!/bin/sh\nchown games:games /usr/bin/greeting\n" >greeting/DEBIAN/postinst
    chmod 755 greeting/DEBIAN/postinst
    dpkg-deb --root-owner-group --build greeting >/dev/null'

@test "dpkg installs a package whose script changes an owner, and removes it" {
    in_debian "$BUILD"'
        dpkg -i greeting.deb >/dev/null
        greeting
        stat -c %U:%G /usr/bin/greeting
        dpkg --purge greeting >/dev/null
        rm -r greeting greeting.deb
        test ! -e /usr/bin/greeting'
    is "$output" $'hello from a package\ngames:games'
}

@test "apt-get installs a local package, changing to its own user as it always does" {
    in_debian "$BUILD"'
        chmod 644 greeting.deb
        apt-get install -y -q ./greeting.deb >log 2>&1 || { cat log; exit 1; }
        ! grep -i "error\|failed\|unsandboxed" log
        greeting
        apt-get purge -y -q greeting >/dev/null 2>&1
        rm -r greeting greeting.deb log'
    is "$output" "hello from a package"
}

@test "the process may be any user of the tree, with its groups" {
    edit "c['process']['user'] = {'uid': 5, 'gid': 60, 'additionalGids': [8]}"
    in_debian 'id; echo "$HOME"'
    has "$output" "uid=5(games) gid=60(games) groups=60(games),8(mail)"
    has "$output" /usr/games
}

@test "the tree also runs with the user's own id alone" {
    ok rm config.json
    ok rt spec --rootless
    in_debian 'id -u; stat -c %U /bin/sh /var/cache/apt/archives/partial'
    is "$output" $'0\nroot\nnobody'
}

@test "with one id alone tar extracts the tree, and dpkg and apt-get install, where changes of owner do nothing" {
    local DIR=$WORK/single tree=$WORK/alone/rootfs
    DIR=$WORK as_user mkdir -p "$WORK/single" "$tree"
    make_rootfs
    ok rt spec --rootless
    as_user mkdir rootfs/tree
    edit "c['mounts'].append({'destination': '/tree', 'source': '$tree', 'options': ['rbind']})"
    program tar -x -f - -C /tree
    LIMIT=300 RT_ok run --uid-emulation noop extract <"$TAR"
    DIR=$WORK/alone
    ok rt spec --rootless
    edit "c['process']['noNewPrivileges'] = False"
    program sh -ec 'mkdir -p /tmp; '"$BUILD"'
        dpkg -i greeting.deb >/dev/null; greeting; dpkg --purge greeting >/dev/null
        apt-get -o APT::Sandbox::User=root install -y -q ./greeting.deb >log 2>&1 || { cat log; exit 1; }
        greeting; stat -c %U /usr/bin/greeting'
    LIMIT=120 RT_ok run --uid-emulation noop installed
    is "$output" $'hello from a package\nhello from a package\nroot'
    ok rm -rf "$WORK/alone" "$WORK/single/rootfs"
}

@test "the host's view: the tree's files belong to the user's subordinate ids" {
    local uid first
    first=$(grep "^$PLAIN_USER:" /etc/subuid | head -n 1 | cut -d: -f2)
    uid=$(stat -c %u "$WORK/debian/rootfs/var/cache/apt/archives/partial")
    [ "$uid" -ge "$first" ]
    is "$(stat -c %U "$WORK/debian/rootfs/bin/sh")" "$PLAIN_USER"
}
