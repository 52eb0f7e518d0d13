# Becomes QEMU, without KVM, as an ordinary user: qemu.sh IMAGE UID GID FD TREE...
# FD is the other end of the virtio port that the agent speaks on. What the machine needs of the TREEs to run rt is
# on its second disk, which it finds at /lab, below host/. The console's text goes to stdout.
set -eu
here=$(dirname -- "$0")
image=$1 uid=$2 gid=$3 fd=$4
shift 4
stage=$image/stage
. "$here/stage.sh"
begin_stage
new=$stage/root

mount --bind "$image/root" "$new"
mount -o remount,bind,ro "$new"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$new/lab"
put_trees /lab/host "$@"

lab=$stage/lab
mkdir -m 755 "$lab"
mkdir -m 1777 "$stage/written" # where QEMU keeps what the machine writes to its disk
cp "$here/agent.py" "$lab/agent.py"
for tree in "$@"; do
	mkdir -p "$lab/host$tree"
	for name in rootless_rt idmap build jeepney click pyseccomp.py; do
		if [ -e "$new/lab/host$tree/$name" ]; then
			cp -a "$new/lab/host$tree/$name" "$lab/host$tree/$name"
		fi
	done
done
mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$lab" "$stage/trees" 200M
chmod 644 "$stage/trees"

# This shell stays, as the first process of the pid namespace (see uml.sh). The processor: with `-cpu max` there is a
# double fault at boot; and QEMU 7.2 spoils the flags of an interrupted cmpxchg16b, which one boot in seven dies of.
cd /
setpriv --reuid "$uid" --regid "$gid" --clear-groups --no-new-privs env -i PATH=/usr/bin:/bin TMPDIR="$stage/written" \
	qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none \
	-machine q35 -cpu Nehalem-v1,-cx16 -accel tcg,thread=multi -smp 2 -m 1536M \
	-kernel "$image/root/boot/lab-vmlinuz" -initrd "$image/root/boot/lab-initrd" \
	-append "console=ttyS0 loglevel=4 panic=-1 psi=1 systemd.show_status=0" \
	-chardev stdio,id=console,signal=off -serial chardev:console \
	-drive "file=$image/disk,format=raw,if=virtio,snapshot=on" \
	-drive "file=$stage/trees,format=raw,if=virtio,readonly=on" \
	-device virtio-serial-pci -chardev "socket,id=agent,fd=$fd" -device virtserialport,chardev=agent,name=agent
