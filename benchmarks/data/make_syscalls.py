"""Writes syscalls.txt, the names that the benchmark's seccomp profile allows, from the kernel headers here.

Every name of the 64-bit and the 32-bit x86 table, less what a container has no business with. Names only:
the conditions on arguments are in bundles.py. The result is kept in the repository so that every machine
times the same profile; run this again only to move to newer headers, and say so beside the new figures.
"""

from __future__ import annotations

import pathlib

HEADERS = pathlib.Path("/usr/include/x86_64-linux-gnu/asm")
OUTPUT = pathlib.Path(__file__).with_name("syscalls.txt")

# Host administration, kernel code and keys, other processes' memory, mounts and namespaces, raw hardware.
DANGEROUS = """\
acct add_key bpf clock_adjtime clock_adjtime64 clock_settime clock_settime64 create_module delete_module
fanotify_init finit_module fsconfig fsmount fsopen fspick get_kernel_syms init_module io_uring_enter
io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind
migrate_pages mount mount_setattr move_mount move_pages nfsservctl open_by_handle_at open_tree perf_event_open
pidfd_getfd pivot_root process_madvise process_vm_readv process_vm_writev ptrace query_module quotactl
quotactl_fd reboot request_key set_mempolicy set_mempolicy_home_node setdomainname setns settimeofday stime
swapoff swapon sysfs syslog umount umount2 unshare uselib userfaultfd ustat vhangup vm86 vm86old
"""

# Numbers without a function behind them in any kernel of today.
RETIRED = """\
_sysctl afs_syscall bdflush break epoll_ctl_old epoll_wait_old ftime getpmsg gtty idle lock mpx prof profil
putpmsg security stty tuxcall ulimit vserver
"""

# Allowed or answered under a condition: rules of their own in bundles.py.
CONDITIONAL = ["clone", "clone3", "personality"]


def header_names(header: pathlib.Path) -> set[str]:
    """The system call names that one `unistd_*.h` defines."""
    lines = (line.split() for line in header.read_text().splitlines())
    names = (words[1] for words in lines if len(words) == 3)
    return {name.removeprefix("__NR_") for name in names if name.startswith("__NR_")}


def main() -> None:
    every = header_names(HEADERS / "unistd_64.h") | header_names(HEADERS / "unistd_32.h")
    allowed = sorted(every.difference(DANGEROUS.split(), RETIRED.split(), CONDITIONAL))
    OUTPUT.write_text("\n".join(allowed) + "\n")
    print(f"{len(allowed)} names written to {OUTPUT.name}")


if __name__ == "__main__":
    main()
