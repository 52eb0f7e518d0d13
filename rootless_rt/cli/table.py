"""The command line as data: every global option and every command, once.

The parser (argv.py), the help and the click application (app.py) are all read from these tuples, so
an option exists everywhere or nowhere. It knows names, kinds and help texts; it must not know
what a command does, and it imports no more than it is written in: every call of `rt` loads it.
"""

from __future__ import annotations

from rootless_rt.cli.option import CHOICE, FLAG, LIST, NAME, NUMBER, TEXT, Command, Option

HELP = Option("h help", FLAG, "show this help")

GLOBAL_OPTIONS: tuple[Option, ...] = (
    Option("root", TEXT, "directory of the containers' state", "DIR"),
    Option("debug", FLAG, "tell on stderr what is being done, and show tracebacks"),
    Option("log", TEXT, "also append errors to this file", "FILE"),
    Option("log-format", CHOICE, "form of the records in --log", default="text", choices=("text", "json")),
    Option(
        "log-level",
        CHOICE,
        "least important messages to show",
        default="warning",
        choices=("error", "warning", "info", "debug"),
    ),
    Option("systemd-cgroup", FLAG, "let systemd make the cgroup (same as --cgroup-manager systemd)"),
    Option(
        "cgroup-manager",
        CHOICE,
        "who makes the cgroup (auto: systemd for an ordinary user with a session, else rt itself)",
        choices=("auto", "cgroupfs", "systemd", "disabled"),
    ),
    Option(
        "rootless",
        CHOICE,
        "treat the caller as a user without root",
        default="auto",
        choices=("auto", "true", "false"),
    ),
    Option(
        "degrade",
        CHOICE,
        "what to do where the host cannot give what was asked: go on with a safe substitute and warn,"
        " or stop (default: warn without root, strict for root)",
        choices=("warn", "strict"),
    ),
    Option("criu", TEXT, "the program criu, for checkpoint and restore (default: the one on PATH)", "PATH"),
    Option("v version", FLAG, "show the version"),
    HELP,
)

_BUNDLE = Option("b bundle", TEXT, "directory of the bundle", "DIR", default=".")
_CONFIG = Option("f config", TEXT, "read this file instead of config.json of the bundle", "FILE")
_DETACH_HELP = "return once the container's process runs"
_KEEP_GROUPS = Option("keep-groups", FLAG, "keep the caller's additional groups")
_IDMAP = Option(
    "idmap",
    TEXT,
    "ids of the container instead of its config's: single (the caller's alone), full (all that /etc/subuid"
    " and /etc/subgid grant), auto (full where that works), keep-id (as auto, but the caller keeps the own"
    " number), nsresource (65536 that systemd-nsresourced lends, the caller's not among them), or a JSON file"
    " with uidMappings and gidMappings",
    "MAP",
)
_EMULATION = Option(
    "uid-emulation",
    CHOICE,
    "where only one id is mapped: noop lets chown, setuid and their like do nothing, successfully, so that"
    " package managers and tar go on",
    choices=("off", "noop"),
)
_NETWORK_OPTIONS = (
    Option(
        "net",
        CHOICE,
        "network instead of the config's: loopback alone, the host's, or one that a helper connects",
        choices=("none", "host", "pasta", "slirp4netns"),
    ),
    Option(
        "p publish",
        LIST,
        "with a helper, have a port of the host, or a range FIRST-LAST, lead to one of the container, or to"
        " as many; an address of IPv6 is in brackets; may be given again",
        "[IP:]PORT:PORT[/udp]",
    ),
    Option("host-loopback", FLAG, "with a helper, let the container reach the host's 127.0.0.1 as 10.0.2.2"),
)
_CREATE_OPTIONS = (
    _BUNDLE,
    _CONFIG,
    _IDMAP,
    _EMULATION,
    *_NETWORK_OPTIONS,
    Option("overlay", FLAG, "leave the rootfs as it is: what the container writes into it goes with it"),
    Option(
        "overlay-dir", NAME, "the same, but keep what is written in this directory, for the next time", "DIR"
    ),
    Option("console-socket", TEXT, "unix socket that receives the terminal's master end", "PATH"),
    Option("pidfd-socket", TEXT, "unix socket that receives a pidfd of the container's process", "PATH"),
    Option("pid-file", TEXT, "write the container's process id to this file", "FILE"),
    Option("no-pivot", FLAG, "do not use pivot_root (for a rootfs on a ramdisk)"),
    Option("no-new-keyring", FLAG, "keep the caller's session keyring"),
    Option("preserve-fds", NUMBER, "pass this many more file descriptors, from 3 on", "N"),
    _KEEP_GROUPS,
)
_ID = ("ID",)
_CGROUP_MODES = ("soft", "full", "strict", "ignore")
_CRIU_OPTIONS = (
    Option("image-path", TEXT, "directory of the images (default: checkpoint, here)", "DIR"),
    Option("work-path", TEXT, "directory of CRIU's log (default: that of the images)", "DIR"),
    Option("tcp-established", FLAG, "take established TCP connections along"),
    Option("ext-unix-sk", FLAG, "allow unix sockets that lead out of the container"),
    Option("shell-job", FLAG, "allow a terminal of the host"),
    Option("file-locks", FLAG, "take file locks along"),
    Option("lazy-pages", FLAG, "fetch the memory only as it is needed (userfaultfd)"),
    Option("auto-dedup", FLAG, "drop memory from the images that other images have, or that is restored"),
    Option("manage-cgroups-mode", CHOICE, "what is saved of cgroups and restored", choices=_CGROUP_MODES),
    Option("empty-ns", LIST, "leave what is in this namespace (network) to whoever restores", "TYPE"),
)
_REGEX_HELP = "the id is a regular expression: all containers with a match of it"

COMMANDS = (
    Command(
        "create",
        "prepare a container from a bundle; its program waits for `start`",
        _ID,
        1,
        # `create` always detaches; one client library can say so.
        _CREATE_OPTIONS + (Option("d detach", FLAG, _DETACH_HELP, hidden=True),),
    ),
    Command(
        "run",
        "create a container from a bundle and start it",
        _ID,
        1,
        _CREATE_OPTIONS
        + (
            Option("d detach", FLAG, _DETACH_HELP),
            Option("keep", FLAG, "keep the container's state when it has ended"),
            Option("no-subreaper", FLAG, "do not adopt the container's orphaned processes"),
        ),
    ),
    Command(
        "exec",
        "run a further program in a container that runs",
        ("ID", "COMMAND"),
        1,
        (
            Option("cwd", TEXT, "working directory in the container", "DIR"),
            Option("e env", LIST, "set a variable; may be given again", "NAME=VALUE"),
            Option("t tty", FLAG, "give the program a terminal"),
            Option("u user", TEXT, "user and group of the program", "UID[:GID]"),
            Option("g additional-gids", LIST, "an additional group; may be given again", "GID"),
            Option(
                "p process", TEXT, "read the process object from this file, instead of these options", "FILE"
            ),
            Option("d detach", FLAG, "return once the program runs"),
            Option("c cap", LIST, "add a capability; may be given again", "CAP"),
            Option("no-new-privs", FLAG, "set no_new_privs"),
            Option("apparmor", TEXT, "AppArmor profile of the program (default: the container's)", "PROFILE"),
            Option("process-label", TEXT, "SELinux label of the program (default: the container's)", "LABEL"),
            Option("console-socket", TEXT, "unix socket that receives the terminal's master end", "PATH"),
            Option("pidfd-socket", TEXT, "unix socket that receives a pidfd of the program", "PATH"),
            Option("pid-file", TEXT, "write the program's process id to this file", "FILE"),
            Option("preserve-fds", NUMBER, "pass this many more file descriptors, from 3 on", "N"),
            _KEEP_GROUPS,
            Option(
                "cgroup",
                LIST,
                "put the program into this cgroup below the container's; CONTROLLER: names the"
                " hierarchy on cgroup v1, where it may be given again",
                "[CONTROLLER:]PATH",
            ),
            Option("ignore-paused", FLAG, "add the program to a paused container too"),
        ),
        stops=True,
    ),
    Command(
        "checkpoint",
        "save a running container to disk, with CRIU",
        _ID,
        1,
        (
            *_CRIU_OPTIONS,
            Option("parent-path", TEXT, "images of a --pre-dump before, as seen from --image-path", "DIR"),
            Option("leave-running", FLAG, "let the container go on afterwards"),
            Option("tcp-skip-in-flight", FLAG, "leave out connections that are still being made"),
            Option("link-remap", FLAG, "give open files that have lost their name one for the time being"),
            Option(
                "status-fd", TEXT, "with --lazy-pages, write a zero byte here when pages can be fetched", "N"
            ),
            Option("page-server", TEXT, "send the memory to this `criu page-server`", "ADDRESS:PORT"),
            Option("pre-dump", FLAG, "save the memory only, and let the container go on"),
        ),
    ),
    Command(
        "restore",
        "bring a container back to life from a checkpoint",
        _ID,
        1,
        (
            _BUNDLE,
            _CONFIG,
            *_CRIU_OPTIONS,
            Option("console-socket", TEXT, "unix socket that receives the terminal's master end", "PATH"),
            Option("d detach", FLAG, _DETACH_HELP),
            Option("pid-file", TEXT, "write the container's process id to this file", "FILE"),
            Option("no-subreaper", FLAG, "do not adopt the container's orphaned processes"),
            Option("no-pivot", FLAG, "accepted: CRIU changes the root as it does", hidden=True),
            Option(
                "lsm-profile", TEXT, "AppArmor profile or SELinux label instead of the saved one", "TYPE:NAME"
            ),
            Option(
                "lsm-mount-context", TEXT, "SELinux context of the mounts instead of the saved one", "LABEL"
            ),
        ),
    ),
    Command("start", "start the program of a created container", _ID, 1),
    Command("state", "print the state of a container as JSON", _ID, 1),
    Command(
        "kill",
        "send a signal to a container (TERM unless named)",
        ("ID", "SIGNAL"),
        1,
        (
            Option("a all", FLAG, "signal all of its processes; do not mind if it has stopped"),
            Option("r regex", FLAG, _REGEX_HELP),
        ),
    ),
    Command(
        "delete",
        "remove a stopped container",
        _ID,
        1,
        (
            Option("f force", FLAG, "kill it first if it runs; do not mind if it does not exist"),
            Option("r regex", FLAG, _REGEX_HELP),
            Option("purge", FLAG, "also remove the root file system, if it lies in the bundle"),
        ),
    ),
    Command(
        "ps",
        "show the processes of a container; what follows the id is for ps",
        ("ID", "ARGS"),
        1,
        (Option("f format", CHOICE, "form of the output", default="table", choices=("table", "json")),),
        stops=True,
    ),
    Command("pause", "stop all processes of a container", _ID, 1),
    Command("resume", "let the processes of a paused container go on", _ID, 1),
    Command(
        "update",
        "change the limits of a container",
        _ID,
        1,
        (
            Option(
                "r resources",
                TEXT,
                "read them from this file, or - for standard input, as JSON (linux.resources of a config);"
                " the other options are ignored then",
                "FILE",
            ),
            Option("memory", TEXT, "limit of memory, such as 64m; -1 for none", "BYTES"),
            Option("memory-swap", TEXT, "limit of memory and swap together; -1 for none", "BYTES"),
            Option("memory-reservation", TEXT, "memory that is not taken back if it can be helped", "BYTES"),
            Option("kernel-memory", TEXT, "ignored: kernels no longer limit it", "BYTES", hidden=True),
            Option("kernel-memory-tcp", TEXT, "ignored: kernels no longer limit it", "BYTES", hidden=True),
            Option("cpu-share", TEXT, "share of the processors when they are busy (default: 1024)", "N"),
            Option("cpu-period", TEXT, "period of the quota, in microseconds", "USECS"),
            Option("cpu-quota", TEXT, "processor time in each period; -1 for no limit", "USECS"),
            Option("cpu-burst", TEXT, "unused quota that may be saved up", "USECS"),
            Option("cpu-rt-period", TEXT, "period of the realtime quota (cgroup v1)", "USECS"),
            Option("cpu-rt-runtime", TEXT, "realtime quota in each period (cgroup v1)", "USECS"),
            Option("cpu-idle", TEXT, "1 to run only when nothing else wants to, 0 to end that", "0|1"),
            Option("cpuset-cpus", TEXT, "the processors to use, such as 0-3,7", "LIST"),
            Option("cpuset-mems", TEXT, "the memory nodes to use", "LIST"),
            Option("pids-limit", TEXT, "most processes and threads; -1 for no limit", "N"),
            Option("blkio-weight", TEXT, "share of the disks when they are busy, 10 to 1000", "N"),
            Option("l3-cache-schema", TEXT, "share of the processor's cache (resctrl)", "LINE"),
            Option("mem-bw-schema", TEXT, "share of the memory bandwidth (resctrl)", "LINE"),
        ),
    ),
    Command(
        "events",
        "print the statistics of a container as lines of JSON, and when its memory runs out",
        _ID,
        1,
        (
            Option("interval", TEXT, "time between statistics", "TIME", default="5s"),
            Option("stats", FLAG, "print the statistics once, and end"),
        ),
    ),
    Command(
        "list",
        "list the containers",
        options=(
            Option("f format", CHOICE, "form of the list", default="table", choices=("table", "json")),
            Option("q quiet", FLAG, "only the ids"),
        ),
    ),
    Command(
        "spec",
        "write a config.json to start from",
        options=(
            _BUNDLE,
            Option("rootless", FLAG, "for a user without root"),
            Option(
                "idmap",
                CHOICE,
                "with --rootless, the container's ids: the caller's alone (single, as without this option),"
                " all that /etc/subuid and /etc/subgid grant (full), or full where that works (auto)",
                choices=("auto", "single", "full"),
            ),
            Option(
                "hardened",
                FLAG,
                "for code that nobody trusts: a user without capabilities, loopback alone as network, a"
                " read-only root, and a tight system call filter",
            ),
            Option("from", TEXT, "start from this config.json instead of the built-in one", "FILE"),
            Option("rootfs-from-host", FLAG, "also make a small rootfs from programs of this host"),
            Option("f file", TEXT, "write to this file instead of config.json of the bundle", "OUT"),
        ),
    ),
    Command(
        "batch",
        "run many jobs, each in a container of its own of one bundle; they are JSON lines of FILE, else of"
        " standard input, and so are the results, as they come",
        ("FILE",),
        options=(
            _BUNDLE,
            Option("j jobs", NUMBER, "containers at a time (default: as many as there are processors)", "N"),
            Option("o output", TEXT, "write the results to this file", "FILE"),
            Option("resume", FLAG, "go on with --output: run only jobs that have no result in it"),
            Option("timeout", TEXT, "time for each job that does not say, such as 10s", "TIME"),
            Option("max-output", TEXT, "kill a job that writes more to a stream", "SIZE", default="16m"),
            Option("overlay", FLAG, "give each job a rootfs of its own, which is thrown away"),
            Option("no-progress", FLAG, "show no progress on a terminal"),
        ),
    ),
    Command("features", "print what this runtime supports as JSON"),
    Command(
        "plan",
        "show what `run` would do with a bundle, and what it would do differently from its config",
        options=(
            _BUNDLE,
            _CONFIG,
            _IDMAP,
            _EMULATION,
            Option("format", CHOICE, "form of the output", default="text", choices=("text", "json")),
        ),
    ),
    Command(
        "unshare",
        "run a program of this host (or a shell) as root of all ids that /etc/subuid and /etc/subgid grant",
        ("COMMAND",),
        stops=True,
    ),
    Command("rm", "remove files whatever granted ids they belong to", ("PATH",), 1, stops=True),
    Command("chown", "make files of any granted ids the caller's own", ("PATH",), 1, stops=True),
    Command(
        "cp",
        "copy files into or out of a bundle whatever granted ids they belong to",
        ("SOURCE", "DESTINATION"),
        2,
        stops=True,
    ),
    Command(
        "doctor",
        "say what this host lacks for containers without root, why, and what helps;"
        " the exit status is 0 (nothing), 1 (rt works with less) or 2 (it does not)",
        options=(
            Option("b bundle", TEXT, "also look at what this bundle needs", "DIR"),
            _CONFIG,
            _IDMAP,
            _EMULATION,
            Option("all", FLAG, "also show what is in order"),
            Option("format", CHOICE, "form of the output", default="text", choices=("text", "json")),
            Option("fix-script", FLAG, "print a shell script of the fixes that need root, to be read first"),
        ),
    ),
    Command("explain", "say more on an id of `doctor`; without one, list them", ("REASON",)),
    Command(
        "lint",
        "name what is dangerous in a config",
        ("CONFIG",),
        options=(
            Option(
                "b bundle", TEXT, "directory of the bundle, unless CONFIG is given (default: here)", "DIR"
            ),
            Option("format", CHOICE, "form of the output", default="text", choices=("text", "json")),
            Option(
                "fail-on",
                CHOICE,
                "end with 1 when there is a finding of at least this severity; a config that cannot be read"
                " or run ends it with 2",
                default="high",
                choices=("high", "medium", "low", "info", "never"),
            ),
        ),
    ),
    Command(
        "completion",
        "print a script with which a shell (bash, zsh, fish) completes words of rt",
        ("SHELL",),
        1,
    ),
    Command("help", "show help for a command", ("COMMAND",)),
)


def find(name: str) -> Command | None:
    """The command called `name`, or None."""
    for command in COMMANDS:
        if command.name == name:
            return command
    return None
