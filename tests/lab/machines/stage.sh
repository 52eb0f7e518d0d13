# What both machines are set up with. In private mount and pid namespaces; $stage is an empty directory to mount on.

# What is mounted from here on is seen here only, and is gone with the last process.
begin_stage() {
	mount --make-rprivate /
	mount -t tmpfs -o mode=755,size=4g stage "$stage"
	mkdir "$stage/root"
}

# Puts each source tree ("$@", read-only) below $1, with bytecode of the machine's Python: it writes none itself.
put_trees() {
	below=$1
	shift
	number=0
	for tree in "$@"; do
		number=$((number + 1))
		layer=$stage/tree$number
		mkdir -p "$layer/upper" "$layer/work" "$stage/root$below$tree"
		mount -t overlay -o "lowerdir=$tree,upperdir=$layer/upper,workdir=$layer/work" tree "$stage/root$below$tree"
	done
	chroot "$stage/root" /usr/bin/python3 -I - "$below" "$@" <<'PYTHON'
import compileall, os, runpy, sys
below, *trees = sys.argv[1:]
for name in ("rootless_rt", "idmap", "jeepney", "click", "pyseccomp.py"):
    for tree in trees:
        path = f"{below}{tree}/{name}"
        if os.path.isdir(path):
            compileall.compile_dir(path, quiet=1)
        elif os.path.exists(path):
            compileall.compile_file(path, quiet=1)
tree = below + trees[0]
archive = f"{tree}/rootless_rt/modules.{sys.implementation.cache_tag}"
sys.argv[1:] = [tree, archive, "--checked"]
runpy.run_path(f"{tree}/tools/archive.py", run_name="__main__")
PYTHON
	for tree in "$@"; do
		mount -o remount,bind,ro "$stage/root$below$tree"
	done
}
