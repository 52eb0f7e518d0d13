/*
 * The program installed as `rt`: finds the interpreter and the package, and becomes
 *
 *     PYTHON -I -S -B -X utf8 -X disable_remote_debug -c CODE SITES HELD ARGUMENT...
 *
 * unless shortcut.c, which is asked first, has done all there was to do. HELD is "", or what that has begun.
 *
 * It knows where an installer may put the package beside it, and which interpreter it was built for. It must not
 * know any option of `rt`, and must not heed the environment, PATH or the current directory: engines start the
 * runtime inside a bundle, and a bundle's json.py must never be imported.
 *
 * Why not a script: `#!python` lines lose their flags in some installers, import `re` in others, and start site;
 * this costs about half a millisecond instead of five to fifteen. -I ignores PYTHON* variables and keeps the current
 * and the user's directory out of sys.path; -S leaves out site and its .pth files; -B writes no bytecode; utf8
 * carries any bytes of argv through (surrogateescape) whatever the locale.
 *
 * Where the package is looked for, P being the directory above the one that holds this program:
 *   the source tree it was built for, if any (RT_TREE, then RT_SITES for third-party packages);
 *   P/{lib,lib64,local/lib}/pythonX.Y/{site,dist}-packages, the same with python3, and P itself (pip --target).
 * Interpreter: pythonX.Y beside this program (a virtual environment), the one it was built with, /usr/bin/pythonX.Y,
 * and last the python3 beside it or in /usr/bin. X.Y is what it was built for: the wheel is tagged with it.
 *
 * Trust: this program's directories are code that runs with the caller's rights, root's included. A directory that
 * everyone can write to is refused, and so is one whose owner is none of: root, the caller, the owner of this very
 * program (who could have put anything in it), the owner of the source tree when it was built (whose build was run).
 * Group-writable is allowed: private groups with umask 002, and Debian's root:staff /usr/local, are common. The
 * interpreter it was built with is skipped when it fails the same test: on another machine that path may be anyone's.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shortcut.h"

#define PACKAGE "rootless_rt"
#define SEPARATOR ":" /* between the directories in SITES; CODE splits at it */

/*
 * gc: a collection during the start finds nothing, for a millisecond; reference counting frees the rest.
 * The archive (cli/archive.py) holds the modules in one file; without it, or with a damaged one, all works as well.
 */
static const char CODE[] =
	"import gc,sys,posix,marshal\n"
	"gc.disable()\n"
	"S=sys.argv[1].split('" SEPARATOR "')\n"
	"sys.path+=S\n"
	"P=S[0]+'/" PACKAGE "/modules.'+sys.implementation.cache_tag\n"
	"try:\n"
	" F=posix.open(P,posix.O_RDONLY|posix.O_CLOEXEC)\n"
	" N=int.from_bytes(posix.read(F,4),'little')\n"
	" C,E,L=marshal.loads(posix.read(F,min(N,1<<20)))\n"
	"except (OSError,ValueError,EOFError,TypeError):pass\n"
	"else:\n"
	" D={'__name__':'archive'};exec(C,D);D['install'](S[0],P,F,N+4,E,L,sys.argv[3:])\n"
	"from " PACKAGE ".cli.main import main\n"
	"sys.exit(main(sys.argv[3:],held=sys.argv[2]))\n";

#ifdef RT_TREE
static const char *const SITES[] = {RT_TREE, RT_SITES NULL};
static const uid_t BUILT_FOR = RT_TREE_UID;
#else
static const char *const LIBS[] = {"/lib", "/lib64", "/local/lib"};
static const char *const PACKAGES[] = {"/site-packages", "/dist-packages"};
static const uid_t BUILT_FOR = (uid_t)-1;
#endif

static char self[PATH_MAX];   /* this program */
static char prefix[PATH_MAX]; /* the directory above its own */
static uid_t self_owner;

/* One line and one hint, as every error of rt is shown; `a`, `b`, `c` are joined. */
static _Noreturn void die(const char *a, const char *b, const char *c, const char *hint)
{
	const char *parts[] = {"rt: ", a, b, c, "\nhint: ", hint, "\n"};
	struct iovec line[7];
	for (int i = 0; i < 7; i++)
		line[i] = (struct iovec){(void *)parts[i], strlen(parts[i])};
	if (writev(2, line, 7) < 0)
		_exit(1); /* nobody listens: the exit status is all there is to say */
	_exit(1);
}

/* Joins up to four strings into out[PATH_MAX]; a path that long cannot be opened anyway. */
static const char *join(char *out, const char *a, const char *b, const char *c, const char *d)
{
	const char *parts[] = {a, b, c, d};
	size_t used = 0;
	for (int i = 0; i < 4; i++) {
		size_t length = strlen(parts[i]);
		if (length >= PATH_MAX - used)
			die("path too long: ", a, b, "install rt in a place with a shorter path");
		memcpy(out + used, parts[i], length);
		used += length;
	}
	out[used] = '\0';
	return out;
}

/* A closed 0, 1 or 2 would be taken by the next file that is opened, and be written to as if it were the output. */
static void fill_closed_stdio(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) < 0)
			_exit(1);
}

/*
 * -I ignores most of them, but where the interpreter looks for its own library PYTHONEXECUTABLE has a say still
 * (CPython 3.11): what lies beside the program that it names would be imported.
 */
static void drop_python_variables(void)
{
	char **to = environ;
	for (char **from = environ; *from; from++)
		if (strncmp(*from, "PYTHON", 6) && strncmp(*from, "__PYVENV_LAUNCHER__=", 20))
			*to++ = *from;
	*to = NULL;
}

static void find_self(void)
{
	struct stat status;
	ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
	if (length <= 0 || self[0] != '/' || stat("/proc/self/exe", &status) < 0)
		die("cannot find itself through /proc/self/exe: ", strerror(errno), "", "mount /proc: rt needs it");
	self[length] = '\0';
	self_owner = status.st_uid;
	memcpy(prefix, self, (size_t)length + 1);
	for (int i = 0; i < 2; i++) {
		char *slash = strrchr(prefix, '/');
		*(slash ? slash : prefix) = '\0'; /* "" is the root directory: "/lib" follows */
	}
}

static int trusted_owner(const struct stat *status)
{
	return status->st_uid == 0 || status->st_uid == geteuid() || status->st_uid == self_owner ||
	       status->st_uid == BUILT_FOR;
}

static void check_status(const char *directory, const struct stat *status)
{
	if (status->st_mode & S_IWOTH)
		die("refusing to load code from ", directory, ": everyone can write there", "chmod o-w it, or install rt elsewhere");
	if (!trusted_owner(status))
		die("refusing to load code from ", directory, ": it belongs to another user", "chown it, or install rt for this user");
}

static void check_trust(const char *directory)
{
	struct stat status;
	if (stat(directory, &status) < 0)
		die("cannot read ", directory, "", "install rt again");
	check_status(directory, &status);
}

/* Where code lies below a package directory that is checked itself. */
static void check_rooms(const char *site)
{
	static const char *const rooms[] = {"/" PACKAGE "/cli", "/" PACKAGE "/container", "/" PACKAGE "/plan",
		"/" PACKAGE "/cgroups", "/" PACKAGE "/criu", "/" PACKAGE "/net", "/" PACKAGE "/api", "/" PACKAGE "/batch",
		"/" PACKAGE "/init", "/" PACKAGE "/spec", "/" PACKAGE "/host",
		"/" PACKAGE "/__pycache__", "/idmap"};
	char path[PATH_MAX];
	struct stat status;
	for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
		if (!stat(join(path, site, rooms[i], "", ""), &status))
			check_status(path, &status);
}

#ifdef RT_TREE
static int is_trusted(const char *directory)
{
	struct stat status;
	return stat(directory, &status) == 0 && !(status.st_mode & S_IWOTH) && trusted_owner(&status);
}

/*
 * The tree and its third-party directories, joined. Of the latter, rt can do without any: one that is missing, or
 * not to be trusted (where host root is not mapped, all of /usr belongs to nobody), is left out.
 */
static const char *find_sites(void)
{
	size_t size = 1;
	for (int i = 0; SITES[i]; i++)
		size += strlen(SITES[i]) + 1;
	char *sites = calloc(1, size);
	if (!sites)
		die("out of memory", "", "", "free some memory");
	for (int i = 0; SITES[i]; i++) {
		if (i > 0 && !is_trusted(SITES[i]))
			continue;
		if (i > 0)
			strcat(sites, SEPARATOR);
		else
			check_trust(SITES[i]);
		strcat(sites, SITES[i]);
	}
	char path[PATH_MAX];
	check_trust(join(path, SITES[0], "/" PACKAGE, "", ""));
	check_rooms(SITES[0]);
	return sites;
}
#else
static int holds_package(const char *site)
{
	char path[PATH_MAX];
	struct stat status;
	return stat(join(path, site, "/" PACKAGE, "", ""), &status) == 0 && S_ISDIR(status.st_mode);
}

/* Looks below every library directory of the prefix for the packages of one python, such as "/python3.11". */
static int find_for(char *site, const char *python)
{
	for (size_t lib = 0; lib < sizeof LIBS / sizeof *LIBS; lib++)
		for (size_t kind = 0; kind < sizeof PACKAGES / sizeof *PACKAGES; kind++) {
			char base[PATH_MAX];
			join(base, prefix, LIBS[lib], python, PACKAGES[kind]);
			if (holds_package(base)) {
				strcpy(site, base);
				return 1;
			}
		}
	return 0;
}

/* The directory that holds the package. */
static const char *find_sites(void)
{
	static char site[PATH_MAX];
	int found = find_for(site, "/python" RT_VERSION) || find_for(site, "/python3");
	if (!found && holds_package(prefix[0] ? prefix : "/")) {
		strcpy(site, prefix[0] ? prefix : "/");
		found = 1;
	}
	if (!found)
		die("cannot find the package " PACKAGE " that belongs to ", self, "", "install rt again: pip install rootless-rt");
	if (strstr(site, SEPARATOR))
		die("cannot run from a path with \"" SEPARATOR "\" in it: ", site, "", "install rt elsewhere");
	char path[PATH_MAX];
	check_trust(site);
	check_trust(join(path, site, "/" PACKAGE, "", ""));
	check_rooms(site);
	return site;
}
#endif

/* Tries one interpreter; comes back only when it is not there. */
static void become(char **argv, const char *directory, const char *name)
{
	char python[PATH_MAX];
	argv[0] = (char *)join(python, directory, name, "", "");
	execv(python, argv);
	if (errno == E2BIG)
		die("cannot start ", python, ": the arguments and the environment are too long", "pass less of them");
}

int main(int argc, char **argv)
{
	static const char *const flags[] = {"-I", "-S", "-B", "-X", "utf8", "-X", "disable_remote_debug", "-c", CODE};
	enum { FLAGS = sizeof flags / sizeof *flags };
	struct stat status;
	char beside[PATH_MAX];

	fill_closed_stdio();
	const char *held = shortcut(argc, argv);
	drop_python_variables();
	find_self();
	const char *sites = find_sites();

	char **python_argv = calloc(1 + FLAGS + 2 + (size_t)argc + 1, sizeof *python_argv);
	if (!python_argv)
		die("out of memory", "", "", "pass fewer arguments");
	memcpy(python_argv + 1, flags, sizeof flags);
	python_argv[1 + FLAGS] = (char *)sites;
	python_argv[2 + FLAGS] = (char *)held;
	for (int i = 1; i < argc; i++)
		python_argv[2 + FLAGS + i] = argv[i];

	memcpy(beside, self, sizeof self);
	strrchr(beside, '/')[1] = '\0';
	become(python_argv, beside, "python" RT_VERSION);
	if (stat(RT_PYTHON, &status) == 0 && !(status.st_mode & S_IWOTH) && trusted_owner(&status))
		become(python_argv, RT_PYTHON, "");
	become(python_argv, "/usr/bin/", "python" RT_VERSION);
	become(python_argv, beside, "python3");
	become(python_argv, "/usr/bin/", "python3");
	die("cannot find Python " RT_VERSION, ": it is neither " RT_PYTHON, " nor in /usr/bin nor beside rt",
	    "install it, or install rt again with the Python you have");
}
