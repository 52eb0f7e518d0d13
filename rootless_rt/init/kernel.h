/* System calls of the new mount API and their constants, for C libraries that lack them. */
#ifndef RT_KERNEL_H
#define RT_KERNEL_H

#include <fcntl.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef FSOPEN_CLOEXEC
#define FSOPEN_CLOEXEC 1
#define FSMOUNT_CLOEXEC 1
#define FSCONFIG_SET_FLAG 0
#define FSCONFIG_SET_STRING 1
#define FSCONFIG_SET_FD 5
#define FSCONFIG_CMD_CREATE 6
#define FSCONFIG_CMD_RECONFIGURE 7
#define FSPICK_CLOEXEC 1
#define FSPICK_EMPTY_PATH 8
#define MOVE_MOUNT_F_EMPTY_PATH 4
#define MOVE_MOUNT_T_EMPTY_PATH 0x40
#define OPEN_TREE_CLONE 1
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif
#define CLONE_FD (OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#ifndef MOUNT_ATTR_RDONLY
#define MOUNT_ATTR_RDONLY 0x1
#define MOUNT_ATTR_NOSUID 0x2
#define MOUNT_ATTR_NODEV 0x4
#define MOUNT_ATTR_NOEXEC 0x8
#define MOUNT_ATTR__ATIME 0x70
#define MOUNT_ATTR_NODIRATIME 0x80
#endif
#ifndef MOUNT_ATTR_IDMAP
#define MOUNT_ATTR_IDMAP 0x100000
#endif

/* mount_setattr(2)'s argument, under a name of our own: C libraries differ in where they have it. */
struct attributes {
	uint64_t set, clear, propagation, userns_fd;
};

static inline int k_open_tree(int dir, const char *path, unsigned flags)
{
	return (int)syscall(SYS_open_tree, dir, path, flags);
}

static inline int k_move_mount(int from, int to_dir, const char *to, unsigned flags)
{
	return (int)syscall(SYS_move_mount, from, "", to_dir, to, flags);
}

static inline int k_setattr(int dir, const char *path, unsigned flags, uint64_t set, uint64_t clear,
			    uint64_t propagation)
{
	struct attributes a = {set, clear, propagation, 0};

	return (int)syscall(SYS_mount_setattr, dir, path, flags, &a, sizeof a);
}

static inline int k_idmap(int mount, unsigned flags, int userns)
{
	struct attributes a = {MOUNT_ATTR_IDMAP, 0, 0, (uint64_t)userns};

	return (int)syscall(SYS_mount_setattr, mount, "", flags, &a, sizeof a);
}

static inline int k_fsopen(const char *type)
{
	return (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
}

static inline int k_fspick(int mount)
{
	return (int)syscall(SYS_fspick, mount, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH);
}

static inline int k_fsconfig(int fs, unsigned command, const char *key, const char *value, int number)
{
	return (int)syscall(SYS_fsconfig, fs, command, key, value, number);
}

static inline int k_fsmount(int fs, unsigned attributes)
{
	return (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes);
}

#endif
