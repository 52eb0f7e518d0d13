"""The system calls that `rt spec --hardened` lets a container make: an allow-list by subject, with reasons.

Written for a sandbox without capabilities in which shells, interpreters, compilers and servers on loopback
run. What is missing is denied with EPERM; system calls newer than this list get ENOSYS (host.seccomp_enosys),
so that C libraries fall back. No architecture is named: only the machine's own can be called, 32-bit calls on
a 64-bit machine are refused whole. Pure data, from the manual pages of section 2.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EPERM, ENOSYS = 1, 38

# The flags of clone(2) that make namespaces. CLONE_NEWTIME is not among them: clone(2) has no room for it.
CLONE_NEW = 0x7E020000
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
NETLINK_ROUTE = 0
_QUERY = 0xFFFFFFFF  # of personality(2)

# (why it is needed, calls)
ALLOWED: tuple[tuple[str, str], ...] = (
    (
        "files: permissions, mounts and Landlock decide which",
        "access faccessat faccessat2 open openat openat2 creat close close_range read readv pread64 preadv"
        " preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek dup dup2 dup3 fcntl fcntl64 flock"
        " stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs statfs64 fstatfs"
        " fstatfs64 getdents getdents64 getcwd chdir fchdir umask truncate truncate64 ftruncate"
        " ftruncate64 fallocate fsync fdatasync sync syncfs sync_file_range sync_file_range2"
        " arm_sync_file_range fadvise64 fadvise64_64 arm_fadvise64_64 readahead copy_file_range sendfile"
        " sendfile64 splice tee ioctl",
    ),
    (
        "names: making, moving and removing them; device nodes take CAP_MKNOD, FIFOs do not",
        "mkdir mkdirat mknod mknodat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink"
        " symlinkat readlink readlinkat",
    ),
    (
        "attributes of files: only the owner may change them, and the owner's ids are the only ones",
        "chmod fchmod fchmodat fchmodat2 chown chown32 lchown lchown32 fchown fchown32 fchownat utime utimes"
        " futimesat utimensat utimensat_time64 getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr"
        " setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr",
    ),
    (
        "pipes and notices of changes",
        "pipe pipe2 inotify_init inotify_init1 inotify_add_watch inotify_rm_watch",
    ),
    (
        "memory of the own process",
        "brk mmap mmap2 munmap mremap mprotect madvise mincore msync mlock mlock2 mlockall munlock munlockall"
        " membarrier memfd_create pkey_alloc pkey_free pkey_mprotect map_shadow_stack mseal",
    ),
    (
        "waiting: polling, timers, events, locks between threads",
        "poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1"
        " epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create"
        " timerfd_settime timerfd_settime64 timerfd_gettime timerfd_gettime64 futex futex_time64 futex_waitv"
        " futex_wait futex_wake futex_requeue pause restart_syscall nanosleep clock_nanosleep"
        " clock_nanosleep_time64 alarm getitimer setitimer timer_create timer_delete timer_settime"
        " timer_settime64 timer_gettime timer_gettime64 timer_getoverrun",
    ),
    (
        "reading clocks and facts of the machine; setting them is not for containers",
        "time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 uname sysinfo"
        " getrandom getcpu times getrusage",
    ),
    (
        "processes and threads of the own pid namespace; clone(2) has a rule of its own",
        "fork vfork execve execveat exit exit_group wait4 waitpid waitid kill tkill tgkill rt_sigqueueinfo"
        " rt_tgsigqueueinfo pidfd_open pidfd_send_signal getpid getppid gettid getpgid getpgrp getsid setpgid"
        " setsid set_tid_address set_robust_list get_robust_list rseq prctl",
    ),
    (
        "signals",
        "rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64"
        " rt_sigreturn sigaltstack sigaction sigprocmask sigpending sigsuspend sigreturn",
    ),
    (
        "own ids: without capabilities nothing but what the process has already can be set",
        "getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid"
        " getresgid32 getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid"
        " setregid32 setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32"
        " capget capset",
    ),
    (
        "limits and scheduling, downwards only",
        "getrlimit ugetrlimit setrlimit prlimit64 getpriority setpriority ioprio_get ioprio_set sched_yield"
        " sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler"
        " sched_setscheduler sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min"
        " sched_rr_get_interval sched_rr_get_interval_time64",
    ),
    (
        "talking through sockets; socket(2) and socketpair(2) have rules of their own",
        "bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt send"
        " sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64",
    ),
    (
        "System V and POSIX queues, semaphores and shared memory of the own ipc namespace",
        "shmget shmat shmdt shmctl semget semop semctl semtimedop semtimedop_time64 msgget msgsnd msgrcv"
        " msgctl mq_open mq_unlink mq_timedsend mq_timedsend_time64 mq_timedreceive"
        " mq_timedreceive_time64 mq_notify mq_getsetattr",
    ),
    (
        "programs that confine themselves further",
        "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    ),
    (
        "what C libraries of some architectures need to start a program or a thread",
        "arch_prctl set_thread_area get_thread_area cacheflush set_tls get_tls breakpoint riscv_hwprobe"
        " riscv_flush_icache swapcontext",
    ),
)

# What is left out on purpose, beside all that takes a capability: for people, and for the tests.
LEFT_OUT: tuple[tuple[str, str], ...] = (
    ("makes or joins namespaces: the way to most of the kernel's rarely tried code", "unshare setns"),
    (
        "changes or shows mounts and roots",
        "mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr"
        " statmount listmount",
    ),
    (
        "reaches into other processes",
        "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_getfd",
    ),
    ("keys are not namespaced", "keyctl add_key request_key"),
    ("runs code in the kernel, or counts in it", "bpf perf_event_open"),
    ("does its work past this filter", "io_uring_setup io_uring_enter io_uring_register"),
    ("stops the kernel at chosen moments", "userfaultfd"),
    ("pins memory, or moves it between nodes", "memfd_secret mbind set_mempolicy migrate_pages move_pages"),
    ("old asynchronous I/O and its history of mistakes", "io_setup io_submit vmsplice remap_file_pages"),
    ("opens files past their directories, or watches those of others", "open_by_handle_at fanotify_init"),
    (
        "is the administrator's",
        "kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff acct"
        " quotactl syslog settimeofday clock_settime adjtimex clock_adjtime sethostname setdomainname"
        " vhangup",
    ),
    ("touches the processor's segments and ports", "modify_ldt iopl ioperm"),
)


def profile() -> dict[str, Any]:
    """The linux.seccomp object: the list above, and the calls that depend on their arguments."""
    names = [name for _, calls in ALLOWED for name in calls.split()]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "flags": [],  # none: SPEC_ALLOW would give up a protection against speculative execution
        "syscalls": [
            _allow(names),
            _allow(["clone"], _arg(0, "MASKED_EQ", CLONE_NEW, 0)),
            # Its flags lie in memory, out of a filter's sight: ENOSYS sends C libraries to clone(2).
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
            *(_allow(["socket"], _arg(0, "EQ", family)) for family in (AF_UNIX, AF_INET, AF_INET6)),
            # What C libraries ask for the addresses of interfaces.
            _allow(["socket"], _arg(0, "EQ", AF_NETLINK), _arg(2, "EQ", NETLINK_ROUTE)),
            _allow(["socketpair"], _arg(0, "EQ", AF_UNIX)),
            # Others switch off the randomized layout of memory, or make old layouts of it.
            *(_allow(["personality"], _arg(0, "EQ", value)) for value in (0, _QUERY)),
        ],
    }


def _allow(names: list[str], *args: dict[str, Any]) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ALLOW"}
    if args:
        rule["args"] = list(args)
    return rule


def _arg(index: int, op: str, value: int, second: int | None = None) -> dict[str, Any]:
    made = {"index": index, "value": value, "op": f"SCMP_CMP_{op}"}
    if second is not None:
        made["valueTwo"] = second
    return made
