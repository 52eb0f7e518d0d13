# Makes a machine's Debian root ($1) one that QEMU can boot: a small initrd with what it takes to reach the disks.
# Leaves /boot/lab-vmlinuz and /boot/lab-initrd.
set -eu
root=$1
version=$(ls "$root/usr/lib/modules")
initrd=$root/tmp/initrd
mkdir -p "$initrd/bin" "$initrd/dev" "$initrd/proc" "$initrd/sys" "$initrd/new"
cp "$root/usr/bin/busybox" "$initrd/bin/busybox"

# In the order of their dependencies; what is part of the kernel is called builtin, and needs nothing.
chroot "$root" modprobe --show-depends --all --set-version "$version" virtio_pci virtio_blk ext4 virtio_console |
	while read -r verb path _; do
		name=$(basename "$path" .xz)
		if [ "$verb" = insmod ] && [ ! -e "$initrd/$name" ]; then
			case $path in
			*.xz) xz --decompress --stdout "$root$path" >"$initrd/$name" ;;
			*) cp "$root$path" "$initrd/$name" ;;
			esac
			echo "$name" >>"$initrd/modules"
		fi
	done

cat >"$initrd/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
while read -r name; do
	$b insmod "/$name" || echo "initrd: no $name"
done </modules
tries=0
until [ -e /dev/vda ] && [ -e /dev/vdb ] || [ $tries = 300 ]; do
	tries=$((tries + 1))
	$b usleep 100000
done
$b mount -t ext4 /dev/vda /new
$b mount -t ext4 -o ro /dev/vdb /new/lab
$b umount /proc /sys /dev
exec $b switch_root /new /sbin/init
INIT
chmod 755 "$initrd/init"
chroot "$root" sh -c 'cd /tmp/initrd && find . | cpio --quiet --create --format=newc' >"$root/boot/lab-initrd"
cp "$root/boot/vmlinuz-$version" "$root/boot/lab-vmlinuz"
chmod 644 "$root/boot/lab-initrd" "$root/boot/lab-vmlinuz"
rm -r "$initrd"
