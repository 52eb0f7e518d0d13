"""Texts on ids, cgroups, the session, quotas and tools: the same on every host. See `reason`."""

from __future__ import annotations

from rootless_rt.host.doctor.reason import CGROUPS, HOST, IDS, NEED, NETWORK, STATE, Reason

_GRANT = (
    "sudo usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST USER (`rt doctor` finds a free range)"
)
_LIMITS = "Limits of the process, keyring, seccomp"
_DEVICES = "Devices"

USER = (
    Reason(
        "RT-IDS-HELPER",
        "degraded",
        "newuidmap and newgidmap",
        cause="Only these two programs may map more than your own ids for you. Without them a container has"
        " one user, and package managers, tar as root and daemons with a user of their own fail in it.",
        found="$PATH, then /usr/bin, /bin, /usr/sbin, /sbin",
        fixes=("install the package that has them",),
        thing="newuidmap",
        chapter=IDS,
    ),
    Reason(
        "RT-IDS-HELPER-RIGHTS",
        "degraded",
        "rights of newuidmap and newgidmap",
        cause="They must be setuid root, or have cap_setuid and cap_setgid as file capabilities. Copies,"
        " image layers and some packages lose these. In a container without CAP_SYS_ADMIN, as Docker's are,"
        " setuid helpers are of no use: it takes the capabilities.",
        found="owner, mode and the security.capability attribute of the files, and their mount's nosuid",
        fixes=(
            "sudo chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap",
            "or: sudo chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap; sudo setcap cap_setuid=ep"
            " /usr/bin/newuidmap; sudo setcap cap_setgid=ep /usr/bin/newgidmap",
            "on a mount with nosuid: sudo mount -o remount,suid MOUNT",
        ),
        chapter=IDS,
    ),
    Reason(
        "RT-IDS-SUBID",
        "degraded",
        "subordinate ids",
        cause="/etc/subuid and /etc/subgid say which ids newuidmap may map for whom. useradd grants a"
        " range to"
        " new users; older accounts, system users and those of LDAP often have none.",
        found="the lines of your name and your number, in both files or from the provider in nsswitch.conf",
        fixes=(_GRANT, "or map only your own ids: rt spec --rootless --idmap single"),
        chapter=IDS,
    ),
    Reason(
        "RT-IDS-SUBID-SIZE",
        "degraded",
        "size of the range of ids",
        cause="Images use ids up to 65534 (nobody). With fewer than 65536 ids some of their files and users"
        " have no owner.",
        found="the sum of the ranges that you are granted",
        fixes=(_GRANT,),
        chapter=IDS,
    ),
    Reason(
        "RT-IDS-SUBID-OVERLAP",
        "degraded",
        "ids granted to two users",
        cause="When two users, or a user and an account, share ids, each can read and change what the other's"
        " containers own.",
        found="your ranges against every other line of the files, and the ids in /etc/passwd and /etc/group",
        fixes=("give one of the two another range, and chown what its containers have made",),
        chapter=IDS,
    ),
    Reason(
        "RT-IDS-SUBID-LINK",
        "degraded",
        "/etc/subuid and /etc/subgid as files",
        cause="usermod refuses, and some tools do not follow, a symbolic link there; on a network file system"
        " the helpers, run as root, may not be able to read it.",
        found="lstat(2), and the file system that the files are on",
        fixes=("make them plain files of a local file system",),
        chapter=IDS,
    ),
    Reason(
        "RT-IDS-PROVIDER",
        "degraded",
        "who grants subordinate ids",
        cause="With `subid:` in /etc/nsswitch.conf newuidmap asks that provider (sss for FreeIPA and LDAP)"
        " and not the files. rt asks it through getsubids.",
        found="/etc/nsswitch.conf, and getsubids in $PATH",
        fixes=("install getsubids (shadow-utils 4.10 or newer)",),
        chapter=IDS,
    ),
    Reason(
        "RT-IDS-NSRESOURCE",
        "degraded",
        "ids lent by systemd-nsresourced",
        cause="From systemd 256 on this service lends a container 65536 ids of nobody, to users without any"
        " grant, as long as it runs. It needs a kernel with the BPF LSM.",
        found="/run/systemd/io.systemd.NamespaceResource, and what is answered there",
        fixes=(
            "sudo apt install systemd-container; sudo systemctl enable --now systemd-nsresourced.socket",
            "boot with bpf among the words of the kernel parameter lsm=",
            "rt run --idmap nsresource",
        ),
        chapter=IDS,
    ),
    Reason(
        "RT-IDS-NAME",
        "degraded",
        "the user's name",
        cause="newuidmap serves only users who have a name; a container that runs with a bare number has"
        " none.",
        found="/etc/passwd and the name services",
        fixes=("add a line for the uid to /etc/passwd", "or map only your own ids"),
        chapter=IDS,
    ),
    Reason(
        "RT-CGROUP-MOUNT",
        "degraded",
        "cgroups",
        cause="Without cgroups there are no limits, no `rt pause`, and a container's processes are found by"
        " their pid namespace only.",
        found="/proc/self/mountinfo",
        fixes=("mount them on /sys/fs/cgroup; in a container: have its engine do so",),
        chapter=CGROUPS,
    ),
    Reason(
        "RT-CGROUP-VERSION",
        "degraded",
        "cgroup version",
        cause="Controllers of cgroup v1 cannot be left to a user, so that on v1 and hybrid hosts limits need"
        " root.",
        found="/proc/self/mountinfo",
        fixes=("boot with systemd.unified_cgroup_hierarchy=1",),
        chapter=CGROUPS,
    ),
    Reason(
        "RT-CGROUP-DELEGATED",
        "degraded",
        "a cgroup to write to",
        cause="A container gets a cgroup where you may make one and move processes into it: in a scope"
        " of your"
        " systemd user manager, or below a cgroup that was delegated to you. Logins over ssh, su and cron are"
        " in a session scope, which is root's.",
        found="the owner of the own cgroup's directory and of its cgroup.procs, and the user bus",
        fixes=(
            "systemd-run --user --scope -p Delegate=yes COMMAND",
            "in a container: mount its cgroup writable, with a cgroup namespace of its own",
        ),
        chapter=CGROUPS,
    ),
    Reason(
        "RT-CGROUP-CONTROLLERS",
        "degraded",
        "delegated controllers",
        cause="A limit takes effect only if its controller is enabled on every level down to the container."
        " systemd passes memory and pids to users, cpu too since version 252; cpuset and io only when told.",
        found="cgroup.controllers from the top of the tree down to what is yours",
        fixes=(
            "[Service] Delegate=cpu cpuset io memory pids in"
            " /etc/systemd/system/user@.service.d/delegate.conf, then systemctl daemon-reload, and log"
            " in anew",
        ),
        chapter=CGROUPS,
    ),
    Reason(
        "RT-CGROUP-LIMITS",
        "degraded",
        "limits of the session",
        cause="The cgroup of your session, or of the container around, has limits that all of your containers"
        " share. A small one makes them fail with `cannot fork` or be killed for memory.",
        found="memory.max and pids.max of the own cgroup and those above it",
        fixes=(
            "systemctl set-property user-UID.slice TasksMax= MemoryMax=",
            "or raise the container's limits",
        ),
        chapter=CGROUPS,
    ),
    Reason(
        "RT-SYSTEMD-BUS",
        "degraded",
        "bus of the systemd user manager",
        cause="Through it rt gets a cgroup with limits. It is there in a login of your own; after su or sudo,"
        " and in cron and services, the variables are missing or those of somebody else.",
        found="sockets: $DBUS_SESSION_BUS_ADDRESS, $XDG_RUNTIME_DIR/bus, /run/user/UID/bus",
        fixes=(
            "loginctl enable-linger USER, then XDG_RUNTIME_DIR=/run/user/UID",
            "machinectl shell USER@, or ssh USER@localhost, instead of su",
        ),
        thing="user bus",
        chapter=CGROUPS,
    ),
    Reason(
        "RT-SYSTEMD-CLIENT",
        "degraded",
        "Python's D-Bus package",
        cause="rt speaks to systemd through jeepney.",
        found="the package can be found",
        fixes=("pip install 'rootless-rt[dbus]'",),
        thing="jeepney",
        chapter=CGROUPS,
    ),
    Reason(
        "RT-SYSTEMD-LINGER",
        "degraded",
        "containers after logout",
        cause="Without linger systemd ends your user manager at your last logout, with all that runs in its"
        " scopes, and removes /run/user/UID with the state of your containers.",
        found="/var/lib/systemd/linger/USER",
        fixes=("loginctl enable-linger USER",),
        chapter=STATE,
    ),
    Reason(
        "RT-SESSION-RUNTIME-DIR",
        "degraded",
        "XDG_RUNTIME_DIR",
        cause="The state of containers is kept there. After su and sudo it is often unset or somebody else's;"
        " rt then takes /run/user/UID, or else a directory in your home.",
        found="the variable; owner, mode and free space of the directory",
        fixes=("export XDG_RUNTIME_DIR=/run/user/UID", "loginctl enable-linger USER"),
        chapter=STATE,
    ),
    Reason(
        "RT-SESSION-HOME",
        "degraded",
        "the way to the home directory",
        cause="rt opens bundles and bind sources as you: a directory on the way that is closed to you makes"
        " `permission denied`. That others cannot pass, not even the other ids of your containers, does not"
        " matter.",
        found="the modes of the directories from / to $HOME",
        fixes=("chmod o+x, or setfacl -m u:ID:x, on the directory that is named",),
        chapter=HOST,
    ),
    Reason(
        "RT-SESSION-PATH",
        "degraded",
        "PATH and locale",
        cause="rt passes over entries of $PATH that are not absolute. In a locale that is not UTF-8 names of"
        " other languages are shown escaped.",
        found="$PATH, $LC_ALL, $LC_CTYPE, $LANG",
        fixes=("export PATH=/usr/local/bin:/usr/bin:/bin", "export LC_ALL=C.UTF-8"),
        chapter=NEED,
    ),
    Reason(
        "RT-PYTHON",
        "blocked",
        "Python and who can change it",
        cause="rt needs Python 3.11. Whoever can write to the interpreter or to rt's modules runs code"
        " as you.",
        found="sys.version_info; mode and owner of the interpreter, of rt's directory, and of those above",
        fixes=("install a newer Python", "sudo chmod go-w on the path that is named"),
        chapter=NEED,
    ),
    Reason(
        "RT-QUOTA-KEYS",
        "degraded",
        "quota of kernel keys",
        cause="Each container joins a session keyring, and the kernel gives a user 200 keys. When they are"
        " used up, containers keep the caller's keyring.",
        found="/proc/key-users, kernel.keys.maxkeys",
        fixes=("sudo sysctl kernel.keys.maxkeys=2000 kernel.keys.maxbytes=250000", "rt run --no-new-keyring"),
        chapter=_LIMITS,
    ),
    Reason(
        "RT-QUOTA-INOTIFY",
        "degraded",
        "inotify instances",
        cause="All programs of a user share fs.inotify.max_user_instances, across containers; services fail"
        " with `too many open files` when it is used up.",
        found="the sysctl",
        fixes=("sudo sysctl fs.inotify.max_user_instances=1024",),
        chapter=_LIMITS,
    ),
    Reason(
        "RT-QUOTA-PROCESSES",
        "degraded",
        "limit of processes",
        cause="RLIMIT_NPROC counts all processes of your uid, those in containers too; forks fail with"
        " EAGAIN.",
        found="getrlimit(2) against the number of your processes that /proc shows",
        fixes=("raise nproc in /etc/security/limits.d", "systemctl edit user@.service: LimitNPROC="),
        chapter=_LIMITS,
    ),
    Reason(
        "RT-QUOTA-FILES",
        "degraded",
        "limit of open files",
        cause="Configs of engines often ask for RLIMIT_NOFILE 1048576. Above your hard limit they are cut.",
        found="getrlimit(2)",
        fixes=("raise nofile in /etc/security/limits.d", "systemctl edit user@.service: LimitNOFILE="),
        chapter=_LIMITS,
    ),
    Reason(
        "RT-NET-PING",
        "degraded",
        "ping without root",
        cause="ping opens ICMP sockets only for groups in net.ipv4.ping_group_range. It counts for containers"
        " that use the host's network; a network namespace of its own has its own.",
        found="the sysctl against your groups",
        fixes=("sudo sysctl 'net.ipv4.ping_group_range=0 2147483647'",),
        chapter=NETWORK,
    ),
    Reason(
        "RT-NET-PORTS",
        "degraded",
        "low ports",
        cause="Without root only ports from net.ipv4.ip_unprivileged_port_start on can be listened on, in"
        " containers on the host's network too.",
        found="the sysctl",
        fixes=("sudo sysctl net.ipv4.ip_unprivileged_port_start=80", "publish ports from 1024 on"),
        chapter=NETWORK,
    ),
    Reason(
        "RT-NET-HELPER",
        "degraded",
        "user-mode networking",
        cause="A network namespace has only a loopback device. pasta or slirp4netns connects it to the"
        " outside without root.",
        found="pasta and slirp4netns in $PATH, and /dev/net/tun",
        fixes=("install passt (or slirp4netns)", "have the container around pass on /dev/net/tun"),
        thing="pasta",
        chapter=NETWORK,
    ),
    Reason(
        "RT-DEV-FUSE",
        "degraded",
        "/dev/fuse",
        cause="fuse-overlayfs and other file systems of users need it.",
        found="whether it can be opened for reading and writing, by its mode and your groups",
        fixes=("sudo modprobe fuse", "Docker, Podman: --device /dev/fuse"),
        chapter=_DEVICES,
    ),
    Reason(
        "RT-DEV-KVM",
        "degraded",
        "/dev/kvm",
        cause="Virtual machines in containers need it. Its group is lost inside unless you keep your groups.",
        found="whether it can be opened for reading and writing, by its mode and your groups",
        fixes=("sudo usermod -aG kvm USER, then log in anew", "rt run --keep-groups"),
        chapter=_DEVICES,
    ),
    Reason(
        "RT-TOOL-SECCOMP",
        "degraded",
        "libseccomp",
        cause="rt compiles seccomp profiles with libseccomp and its Python bindings. A config with a profile"
        " does not start without them; one without needs neither.",
        found="the library among those of the system, and the package seccomp or pyseccomp",
        fixes=("pip install 'rootless-rt[seccomp]', or the distribution's python3-seccomp",),
        thing="libseccomp",
        chapter=_LIMITS,
    ),
    Reason(
        "RT-TOOL-CRIU",
        "degraded",
        "criu",
        cause="Checkpoints are made by criu, for which root is needed. Without it, rt lacks nothing else.",
        found="$PATH, or --criu; as root also `criu check`, and the Python package protobuf",
        fixes=("install criu, and python3-protobuf or rootless-rt[criu]",),
        thing="criu",
        chapter=NEED,
    ),
)
