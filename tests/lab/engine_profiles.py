"""The profiles that engines give their containers by default, in the form in which a runtime gets them.

Rebuilt from what the engines document of theirs, for an x86_64 host of today and the capabilities a container
has by default: lists by subject here, and the rules with arguments by hand. Not their files.
"""

from __future__ import annotations

from typing import Any

Profile = dict[str, Any]

EPERM, EINVAL, ENOSYS = 1, 22, 38
AF_NETLINK, AF_VSOCK, NETLINK_AUDIT = 16, 40, 9
# The flags of clone(2) that make namespaces; CLONE_NEWTIME is a part of the signal's number there.
CLONE_NEW = 0x7E020000
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)


def _words(text: str) -> list[str]:
    return text.split()


FILES = _words(
    """
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat
    faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr
    fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd
    getdents getdents64 getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl
    lchown lchown32 lgetxattr link linkat listxattr llistxattr _llseek lremovexattr lseek lsetxattr
    lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pipe
    pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
    removexattr rename renameat renameat2 rmdir sendfile sendfile64 setxattr splice stat stat64
    statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64
    umask unlink unlinkat utime utimensat utimensat_time64 utimes write writev
    """
)
MEMORY = _words(
    """
    brk madvise membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2
    mprotect mremap msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
    process_mrelease remap_file_pages
    """
)
WAITING = _words(
    """
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 futex futex_time64 io_cancel io_destroy io_getevents io_setup
    io_submit _newselect pause poll ppoll ppoll_time64 pselect6 pselect6_time64 restart_syscall
    select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64
    """
)
PROCESS = _words(
    """
    alarm capget capset execve execveat exit exit_group fork getcpu getegid getegid32 geteuid
    geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpgid getpgrp getpid getppid
    getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list
    getrusage getsid get_thread_area gettid getuid getuid32 ioprio_get ioprio_set kill pidfd_open
    pidfd_send_signal prctl prlimit64 rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
    sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp setfsgid setfsgid32 setfsuid
    setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid
    setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit
    set_robust_list setsid set_thread_area set_tid_address setuid setuid32 sigaltstack sigprocmask
    sigreturn tgkill times tkill ugetrlimit vfork wait4 waitid waitpid
    """
)
CLOCKS = _words(
    """
    clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 gettimeofday nanosleep sysinfo time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 uname adjtimex
    clock_adjtime clock_adjtime64
    """
)
TALKING = _words(
    """
    accept accept4 bind connect getpeername getsockname getsockopt ipc listen mq_getsetattr
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
    mq_unlink msgctl msgget msgrcv msgsnd recv recvfrom recvmmsg recvmmsg_time64 recvmsg semctl
    semget semop semtimedop semtimedop_time64 send sendmmsg sendmsg sendto setsockopt shmat shmctl
    shmdt shmget shutdown socketcall socketpair
    """
)
LANDLOCK = ["landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self"]
X86 = ["arch_prctl", "modify_ldt"]
EVERYDAY = FILES + MEMORY + WAITING + PROCESS + CLOCKS + TALKING + LANDLOCK + X86

# Docker alone lets these through; some are newer than older libseccomps.
DOCKER_MORE = _words(
    """
    cachestat futex_requeue futex_wait futex_waitv futex_wake io_pgetevents io_pgetevents_time64
    map_shadow_stack vmsplice process_vm_readv process_vm_writev ptrace chroot
    """
)
# What takes CAP_SYS_ADMIN in its eyes, and other capabilities a container does not have by default.
DOCKER_WITHHELD = _words(
    """
    bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
    open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount
    umount2 unshare open_by_handle_at reboot delete_module init_module finit_module acct kcmp
    pidfd_getfd process_madvise iopl ioperm settimeofday stime clock_settime clock_settime64 vhangup
    get_mempolicy mbind set_mempolicy set_mempolicy_home_node
    """
)
# ... and what is for nobody.
FOR_NOBODY = _words(
    """
    add_key create_module get_kernel_syms io_uring_enter io_uring_register io_uring_setup
    kexec_file_load kexec_load keyctl migrate_pages move_pages nfsservctl pivot_root query_module
    request_key swapoff swapon sysfs _sysctl uselib userfaultfd ustat vm86 vm86old
    """
)

# podman: what is denied with EPERM by name, so that the default can be ENOSYS.
PODMAN_EPERM = _words(
    """
    bdflush kexec_file_load kexec_load migrate_pages move_pages nfsservctl nice oldfstat oldlstat
    oldolduname oldstat olduname sgetmask ssetmask swapoff swapon sysfs uselib userfaultfd ustat
    vm86 vm86old vmsplice
    """
)
PODMAN_MORE = _words(
    """
    chroot clone clone3 fsconfig fsmount fsopen fspick keyctl mount mount_setattr move_mount
    open_tree pidfd_getfd pivot_root reboot request_key setns sethostname signal sigaction
    sigpending sigsuspend umount umount2 unshare
    """
)
PODMAN_WITHHELD = _words(
    """
    open_by_handle_at bpf fanotify_init lookup_dcookie perf_event_open quotactl quotactl_fd
    setdomainname syslog delete_module init_module finit_module query_module acct kcmp
    process_madvise process_vm_readv process_vm_writev ptrace iopl ioperm settimeofday stime
    clock_settime clock_settime64 vhangup get_mempolicy mbind set_mempolicy set_mempolicy_home_node
    """
)

ARCHITECTURES = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]


def _rule(names: list[str], action: str = "ALLOW", args: list[Profile] | None = None, **more: Any) -> Profile:
    """As Go's encoder writes it: `args` is there even without any."""
    return {"names": names, "action": f"SCMP_ACT_{action}", "args": args or [], **more}


def _arg(index: int, op: str, value: int, second: int = 0) -> Profile:
    return {"index": index, "value": value, "valueTwo": second, "op": f"SCMP_CMP_{op}"}


def _personalities() -> list[Profile]:
    return [_rule(["personality"], args=[_arg(0, "EQ", value)]) for value in PERSONALITIES]


def docker() -> Profile:
    """Docker's, for a container without further capabilities."""
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": ARCHITECTURES,
        "syscalls": [
            _rule([*EVERYDAY, *DOCKER_MORE]),
            _rule(["socket"], args=[_arg(0, "NE", AF_VSOCK)]),
            *_personalities(),
            _rule(["clone"], args=[_arg(0, "MASKED_EQ", CLONE_NEW, 0)]),
            _rule(["clone3"], "ERRNO", errnoRet=ENOSYS),
        ],
    }


def podman() -> Profile:
    """podman's, likewise. All audit sockets are EINVAL, so that programs take audit for not being there."""
    audit = [_arg(0, "EQ", AF_NETLINK), _arg(2, "EQ", NETLINK_AUDIT)]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": ARCHITECTURES,
        "syscalls": [
            _rule(PODMAN_EPERM, "ERRNO", errnoRet=EPERM),
            _rule([*EVERYDAY, *PODMAN_MORE]),
            *_personalities(),
            _rule(PODMAN_WITHHELD, "ERRNO", errnoRet=EPERM),
            _rule(["socket"], "ERRNO", audit, errnoRet=EINVAL),
            _rule(["socket"], args=[_arg(2, "NE", NETLINK_AUDIT)]),
            _rule(["socket"], args=[_arg(0, "NE", AF_NETLINK)]),
        ],
    }
