# Makes a fresh Debian root ($1) a machine for tests: users, what starts at boot, the agent's unit.
set -eu
root=$1

chroot "$root" useradd --create-home --shell /bin/bash --uid 1000 alice
chroot "$root" useradd --create-home --shell /bin/bash --uid 1001 -K SUB_UID_COUNT=0 -K SUB_GID_COUNT=0 bare
grep -q '^alice:' "$root/etc/subuid" && ! grep -q '^bare:' "$root/etc/subuid"
mkdir -p "$root/var/lib/systemd/linger"
touch "$root/var/lib/systemd/linger/alice"

# A machine that has been booted before: the first time takes longer.
echo 6d2b1f0a4c7e4e0f9a3b5c8d7e6f1a2b >"$root/etc/machine-id"
echo machine >"$root/etc/hostname"
echo '127.0.0.1 localhost machine' >"$root/etc/hosts"
ln -sf /usr/share/zoneinfo/UTC "$root/etc/localtime"
: >"$root/etc/fstab"
mkdir "$root/lab"

# The rootfs that bundles are given a copy of.
rootfs=$root/usr/share/rt-lab/rootfs
for name in bin dev etc proc root sys tmp usr/bin var; do
	mkdir -p "$rootfs/$name"
done
chmod 1777 "$rootfs/tmp"
cp "$root/usr/bin/busybox" "$rootfs/bin/busybox"
"$rootfs/bin/busybox" --list | while read -r name; do
	case $name in busybox | */*) ;; *) ln -s busybox "$rootfs/bin/$name" ;; esac
done
echo 'root:x:0:0:root:/root:/bin/sh' >"$rootfs/etc/passwd"
echo 'root:x:0:' >"$rootfs/etc/group"

# Whatever only takes time, and (in namespaces) what would set something of the host's kernel.
for unit in \
	apparmor.service apt-daily.timer apt-daily-upgrade.timer console-getty.service dpkg-db-backup.timer \
	e2scrub_all.timer e2scrub_reap.service fstrim.timer getty.target ldconfig.service \
	modprobe@.service proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount \
	sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
	systemd-binfmt.service systemd-firstboot.service systemd-hwdb-update.service \
	systemd-journal-catalog-update.service systemd-journal-flush.service systemd-modules-load.service \
	systemd-network-generator.service systemd-networkd.service systemd-pstore.service \
	systemd-random-seed.service systemd-remount-fs.service systemd-resolved.service systemd-sysctl.service \
	systemd-sysext.service systemd-timesyncd.service systemd-tmpfiles-clean.timer systemd-udevd.service \
	systemd-udev-trigger.service systemd-update-done.service systemd-update-utmp.service tmp.mount; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
mkdir -p "$root/etc/tmpfiles.d" "$root/etc/systemd/journald.conf.d"
: >"$root/etc/tmpfiles.d/tmp.conf" # nothing in /tmp is to be removed
printf '[Journal]\nStorage=volatile\nReadKMsg=no\n' >"$root/etc/systemd/journald.conf.d/lab.conf"

cat >"$root/etc/systemd/system/rt-lab.service" <<'UNIT'
[Unit]
Description=The agent of rt's tests
After=dbus.service systemd-logind.service systemd-user-sessions.service

[Service]
ExecStartPre=/bin/sh -c 'test -e /lab/agent.py || mount -t hostfs none /lab'
ExecStart=/usr/bin/python3 -I /lab/agent.py
KillMode=process
TasksMax=infinity

[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl enable rt-lab.service 2>/dev/null
chroot "$root" systemctl set-default multi-user.target 2>/dev/null

# Of User-mode Linux's modules, those that containers use; there is no udev to load them.
for modules in "$root"/usr/lib/uml/modules/*; do
	if [ -d "$modules" ]; then
		find "$modules" -name '*.ko*' ! -name overlay.ko ! -name fuse.ko ! -name tun.ko ! -name veth.ko \
			! -name 'bridge.ko' ! -name dummy.ko -delete
	fi
done
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
