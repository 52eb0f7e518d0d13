# Becomes systemd on a Debian root, as PID 1 of new namespaces: systemd.sh IMAGE SHARE TREE...
# SHARE is seen as /lab/share, each TREE at its own path. $RT is the command.
set -eu
here=$(dirname -- "$0")
image=$1 share=$2
shift 2
stage=$image/stage
. "$here/stage.sh"
begin_stage
new=$stage/root

mkdir "$stage/upper" "$stage/work"
mount -t overlay -o "lowerdir=$image/root,upperdir=$stage/upper,workdir=$stage/work" root "$new"
mount -t proc -o nosuid,nodev,noexec proc "$new/proc"
mount -t sysfs -o nosuid,nodev,noexec sysfs "$new/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$new/sys/fs/cgroup"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$new/run"
mount -t tmpfs -o mode=1777,nosuid,nodev,size=1g tmpfs "$new/tmp"

mount -t tmpfs -o mode=755,nosuid tmpfs "$new/dev"
mkdir "$new/dev/pts" "$new/dev/shm" "$new/dev/mqueue" "$new/dev/net"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$new/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$new/dev/shm"
mount -t mqueue mqueue "$new/dev/mqueue"
ln -s pts/ptmx "$new/dev/ptmx"
ln -s /proc/self/fd "$new/dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do
	ln -s "/proc/self/fd/${number%:*}" "$new/dev/${number#*:}"
done
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 fuse:10:229 net/tun:10:200; do
	numbers=${node#*:}
	mknod -m 666 "$new/dev/${node%%:*}" c "${numbers%:*}" "${numbers#*:}"
done

mkdir "$new/lab/share"
cp "$here/agent.py" "$new/lab/agent.py"
mount --bind "$share" "$new/lab/share"
put_trees "" "$@"
ln -s "$RT" "$new/usr/local/bin/rt"

# /proc/sys is the host's: systemd must not set anything there. The kernel lets a user namespace mount a proc only
# where a proc without such covers is to be seen: here is one, which root alone can reach.
mkdir -m 700 "$new/lab/whole"
mkdir "$new/lab/whole/proc"
mount -t proc proc "$new/lab/whole/proc"
mount --bind "$new/proc/sys" "$new/proc/sys"
mount -o remount,bind,ro "$new/proc/sys"
if [ -e "$new/proc/sysrq-trigger" ]; then
	mount --bind /dev/null "$new/proc/sysrq-trigger"
fi

cd "$new"
pivot_root . mnt
# The time, the modules and the log belong to the host.
exec chroot . /bin/sh -c 'umount -l /mnt && cd / && exec env -i container=rt-lab PATH=/usr/sbin:/usr/bin \
	setpriv --bounding-set=-sys_time,-sys_module,-syslog,-sys_boot,-sys_rawio /lib/systemd/systemd --log-target=null'
