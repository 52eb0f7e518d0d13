# Becomes a Linux kernel in a process of an ordinary user: uml.sh IMAGE SHARE UID GID FD MODULE TREE...
# FD is the other end of the machine's serial line, MODULE the security module to run.
# The machine finds SHARE at /lab/share, each TREE at /lab/host/TREE.
# The kernel's log goes to stdout.
set -eu
here=$(dirname -- "$0")
image=$1 share=$2 uid=$3 gid=$4 fd=$5 module=$6
shift 6
stage=$image/stage
. "$here/stage.sh"
begin_stage
new=$stage/root

# The program needs the C library of its Debian; it sees that root, and nothing of the host but what follows.
mount --bind "$image/root" "$new"
mount -o remount,bind,ro "$new"
mount -t proc -o nosuid,nodev,noexec proc "$new/proc"
mount -t tmpfs -o mode=1777,nosuid,nodev,size=4g tmpfs "$new/tmp" # the machine's memory, and what it writes
mount -t tmpfs -o mode=755,nosuid tmpfs "$new/dev"
for node in null:1:3 zero:1:5 random:1:8 urandom:1:9; do
	numbers=${node#*:}
	mknod -m 666 "$new/dev/${node%%:*}" c "${numbers%:*}" "${numbers#*:}"
done
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$new/lab"
mkdir "$new/lab/share" "$new/lab/host"
cp "$here/agent.py" "$new/lab/agent.py"
: >"$new/lab/disk"
mount --bind "$image/disk" "$new/lab/disk"
mount -o remount,bind,ro "$new/lab/disk"
mount --bind "$share" "$new/lab/share"
put_trees /lab/host "$@"

# This shell stays, as the first process of the pid namespace: it is killed with its parent, which a process that has
# changed its user would not be (prctl(2), PR_SET_PDEATHSIG).
cd /
env -i TMPDIR=/tmp PATH=/usr/bin:/usr/sbin HOME=/tmp chroot --userspec="$uid:$gid" --groups= "$new" \
	/usr/bin/linux.uml mem=2048M ubd0=/tmp/disk,/lab/disk root=/dev/ubda rw hostfs=/lab \
	con=null con0=null,fd:1 ssl=null "ssl1=fd:$fd" "security=$module" enforcing=0 systemd.show_status=0
