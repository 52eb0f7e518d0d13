#!/bin/sh
# Compiles the two static programs of rt. The one place of compiler flags: meson.build and the tree's own build call it.
#
#   build.sh rt-init OUT                      the performer of plans, from every .c file beside this script
#   build.sh launcher OUT [TREE [SITE...]]    the `rt` command; with TREE it runs that source tree, with
#                                             third-party packages from the SITE directories
#   build.sh compiler                         names the compiler it would use
#
# CC        the compiler (may hold arguments); else the first that links statically of
#           musl-gcc, zig cc (the ziglang package of $PYTHON), gcc, clang, cc
# PYTHON    the interpreter the launcher is built for (python3)
#
# Why musl comes first (measured with rt-init's shape, in a memfd, x86_64): 30 kB against 680 kB of file, 0.16 ms
# against 0.41 to start and wait for, 44 kB against 690 kB of PSS while a created container waits. With glibc, static
# and static-pie are level (0.41 ms, 690 kB), with musl static-pie costs 0.01 ms and gcc's wrapper cannot link it:
# plain static it is, the one that works everywhere.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
what=${1:?rt-init, launcher or compiler}
if [ "$what" = compiler ]; then out=; else out=${2:?the file to write}; shift 2; fi
PYTHON=${PYTHON:-python3}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/rt-build.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# What every compiler gets; sets `flags` for $1.
choose_flags() {
	flags="-std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -O2 -Wall -Wextra -Werror -fstack-protector-strong -fno-pie -fno-asynchronous-unwind-tables"
	flags="$flags -Wformat=2 -Wformat-security -Wvla -fno-common -ftrivial-auto-var-init=zero -fstack-clash-protection"
	flags="$flags -pthread -static -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -s"
	case $1 in
	*zig*) # for the oldest CPU of the machine's kind, not for this one
		case $(uname -m) in
		armv*) target=arm-linux-musleabihf ;;
		i?86) target=x86-linux-musl ;;
		ppc64le) target=powerpc64le-linux-musl ;;
		*) target=$(uname -m)-linux-musl ;;
		esac
		flags="$flags -target $target -mcpu=baseline" ;;
	*musl-gcc*) # musl brings no kernel headers: lend it the system's, and nothing else of /usr/include
		triplet=$($1 -print-multiarch 2>/dev/null || true)
		mkdir -p "$scratch/include"
		for name in linux asm asm-generic; do
			for directory in "/usr/include/$triplet/$name" "/usr/include/$name"; do
				if [ -d "$directory" ]; then
					ln -sfn "$directory" "$scratch/include/$name"
					break
				fi
			done
		done
		flags="$flags -idirafter $scratch/include" ;;
	esac
	flags="$flags -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3"
}

# A compiler without a static libc or the kernel's headers is as good as none.
works() {
	choose_flags "$1"
	printf '#include <unistd.h>\n#include <linux/types.h>\nint main(void) { return getpid() == 0; }\n' >"$scratch/probe.c"
	if $1 $flags -o "$scratch/probe" "$scratch/probe.c" 2>>"$scratch/why"; then
		return 0
	fi
	# Older compilers stop at level 3, and some know one of these not yet, or not for every machine.
	flags="$flags -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2"
	for spare in -ftrivial-auto-var-init=zero -fstack-clash-protection; do
		if ! $1 $flags -o "$scratch/probe" "$scratch/probe.c" 2>/dev/null; then
			flags=$(printf '%s' "$flags" | sed "s/ $spare//")
		fi
	done
	$1 $flags -o "$scratch/probe" "$scratch/probe.c" 2>>"$scratch/why"
}

find_compiler() {
	for CC in musl-gcc "$PYTHON -m ziglang cc" gcc clang cc; do
		if works "$CC"; then
			return
		fi
	done
	echo "build.sh: no C compiler that links statically; apt install musl-tools gcc libc6-dev (or pip install ziglang)" >&2
	exit 1
}

# A shell string as a C string literal.
literal() {
	printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"
}

if [ -z "${CC:-}" ]; then
	find_compiler
elif ! works "$CC"; then
	cat "$scratch/why" >&2
	echo "build.sh: CC='$CC' does not link a static program" >&2
	exit 1
fi

case $what in
compiler)
	echo "$CC"
	exit
	;;
rt-init)
	# Small rather than fast: every created container that waits holds these pages, and the kernel does the work.
	# shellcheck disable=SC2086 # flags and CC are lists
	$CC $flags -Os -ffunction-sections -fdata-sections -Wl,--gc-sections -o "$scratch/out" "$here"/*.c
	;;
launcher)
	# The interpreter itself, not the virtual environment's link to it: that may be gone when rt runs.
	base=$("$PYTHON" -I -c 'import os, sys; print(os.path.abspath(sys._base_executable or sys.executable))')
	version=$("$PYTHON" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	release=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' "$here/../version.py")
	if [ $# -gt 0 ]; then
		case $* in
		*:*)
			echo "build.sh: rt cannot run from a path with ':' in it: $*" >&2
			exit 1 ;;
		esac
		tree=$1
		shift
		sites=
		for site in "$@"; do
			sites="$sites$(literal "$site"),"
		done
		set -- "-DRT_TREE=$(literal "$tree")" "-DRT_TREE_UID=$(stat -c %u -- "$tree")" "-DRT_SITES=$sites"
	fi
	# shellcheck disable=SC2086
	$CC $flags "-DRT_PYTHON=$(literal "$base")" "-DRT_VERSION=$(literal "$version")" \
		"-DRT_RELEASE=$(literal "$release")" "$@" -o "$scratch/out" "$here"/../cli/*.c
	;;
*)
	echo "build.sh: nothing called $what" >&2
	exit 2
	;;
esac

# In one step, so that a running rt never sees half a file.
mkdir -p -- "$(dirname -- "$out")"
cp -- "$scratch/out" "$out.new"
chmod 755 -- "$out.new"
mv -f -- "$out.new" "$out"
