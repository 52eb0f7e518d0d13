/*
 * The command lines that take the short way: a part of what cli/argv.py accepts, read as it reads them. A test
 * compares the two. Unknown to this file, and so left to Python: --debug and --log-level, which have more said,
 * every option that changes what the verb does to a container, "--", and whatever is wrong.
 */
#include <string.h>

#include "shortcut.h"

enum kind { FLAG, TEXT };

struct option {
	const char *name;
	enum kind kind;
	const char *choices; /* of a TEXT: one of these, each with a space behind it; NULL: anything */
};

/* Of the globals, --root alone matters to these verbs; nothing is logged when all goes well. */
static const struct option GLOBALS[] = {
	{"root", TEXT, NULL},
	{"log", TEXT, NULL},
	{"log-format", TEXT, "text json "},
	{"systemd-cgroup", FLAG, NULL},
	{"cgroup-manager", TEXT, "auto cgroupfs systemd disabled "},
	{"rootless", TEXT, "auto true false "},
	{"degrade", TEXT, "warn strict "},
	{"criu", TEXT, NULL},
	{NULL, FLAG, NULL},
};
static const struct option NONE[] = {{NULL, FLAG, NULL}};
static const struct option OF_KILL[] = {{"all", FLAG, NULL}, {"a", FLAG, NULL}, {NULL, FLAG, NULL}};
static const struct option OF_DELETE[] = {{"force", FLAG, NULL}, {"f", FLAG, NULL}, {NULL, FLAG, NULL}};

static const struct option OF_EXEC[] = {{"process", TEXT, NULL}, {"p", TEXT, NULL}, {NULL, FLAG, NULL}};
static const struct option OF_RUN[] = {{"bundle", TEXT, NULL}, {"b", TEXT, NULL}, {NULL, FLAG, NULL}};

static const struct {
	const char *name;
	enum verb verb;
	const struct option *options;
	int most; /* positional arguments, of which the first must be given */
} VERBS[] = {
	{"state", STATE, NONE, 1},
	{"kill", KILL, OF_KILL, 2},
	{"start", START, NONE, 1},
	{"delete", DELETE, OF_DELETE, 1},
	{"run", RUN, OF_RUN, 1},
	{"exec", EXEC, OF_EXEC, 0},
};

static const struct option *find_option(const struct option *known, const char *name, size_t length)
{
	for (; known->name; known++)
		if (strlen(known->name) == length && !memcmp(known->name, name, length))
			return known;
	return NULL;
}

static int is_choice(const char *choices, const char *word)
{
	size_t length = strlen(word);

	for (const char *end; (end = strchr(choices, ' ')); choices = end + 1)
		if ((size_t)(end - choices) == length && !memcmp(choices, word, length))
			return 1;
	return 0;
}

/* argv.py, _BOOLEANS: 1, 0, or -1 for what is neither. */
static int boolean(const char *word)
{
	if (is_choice("1 t T true True TRUE ", word))
		return 1;
	return is_choice("0 f F false False FALSE ", word) ? 0 : -1;
}

/* What one option says; a FLAG's value is in `on`. */
struct said {
	const struct option *option;
	const char *value;
	int on;
};

/* argv.py, _scan: the option in argv[*at], and its value; *at moves behind both. */
static int read_option(const struct option *known, int argc, char **argv, int *at, struct said *said)
{
	const char *name = argv[(*at)++] + 1;

	name += *name == '-';
	const char *equals = strchr(name, '=');
	said->option = find_option(known, name, equals ? (size_t)(equals - name) : strlen(name));
	said->value = equals ? equals + 1 : NULL;
	said->on = 1;
	if (!said->option)
		return 0;
	if (said->option->kind == FLAG)
		return !said->value || (said->on = boolean(said->value)) >= 0;
	if (!said->value) {
		if (*at == argc)
			return 0;
		said->value = argv[(*at)++];
	}
	return !said->option->choices || is_choice(said->option->choices, said->value);
}

/* A word that begins like an option: a lone dash is a value, and so is the empty word. */
static int is_option(const char *word)
{
	return word[0] == '-' && word[1];
}

static int is_digits(const char *text)
{
	size_t length = strspn(text, "0123456789");

	return length && length <= 20 && !text[length];
}

/* names.py, decimal: capped, as nothing here counts beyond a hundred. */
static int decimal(const char *text)
{
	int number = 0;

	for (; *text; text++)
		number = number > 100 ? number : number * 10 + (*text - '0');
	return number;
}

static char upper(char c)
{
	return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

/* names.py, signal_number: 0 for what is none. */
static int signal_number(const char *word)
{
	static const struct {
		const char *name;
		int number;
	} signals[] = {
#define X(name, number) {name, number},
		SIGNAL_TABLE(X)
#undef X
	};
	char name[40];
	size_t length = 0;

	if (is_digits(word)) {
		int number = decimal(word);
		return number <= SIGNAL_RTMAX ? number : 0;
	}
	for (; word[length]; length++) {
		if (length == sizeof name - 1 || word[length] & 0x80)
			return 0;
		name[length] = upper(word[length]);
	}
	name[length] = '\0';
	const char *bare = strncmp(name, "SIG", 3) ? name : name + 3;
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		if (!strcmp(bare, signals[i].name))
			return signals[i].number;
	int from_top = !strncmp(bare, "RTMAX-", 6);
	if ((!from_top && strncmp(bare, "RTMIN+", 6)) || !is_digits(bare + 6))
		return 0;
	int offset = decimal(bare + 6);
	if (offset > SIGNAL_RTMAX - SIGNAL_RTMIN)
		return 0;
	return from_top ? SIGNAL_RTMAX - offset : SIGNAL_RTMIN + offset;
}

/* The first word that is no option ends them: what follows is a command. */
static int read_exec(int argc, char **argv, int at, struct call *call)
{
	struct said said;

	while (at < argc && is_option(argv[at])) {
		if (!read_option(OF_EXEC, argc, argv, &at, &said))
			return 0;
		call->process = said.value;
	}
	if (at == argc)
		return 0;
	call->id = argv[at++];
	call->words = argv + at;
	/* No word, or one of an odd form, is Python's, and so are words beside a file. */
	return call->process ? at == argc : at < argc && *argv[at] && !is_option(argv[at]);
}

static int read_verb(int argc, char **argv, int at, struct call *call)
{
	const char *words[2] = {NULL, NULL};
	struct said said;
	size_t verb = 0;
	int given = 0;

	while (strcmp(argv[at], VERBS[verb].name))
		if (++verb == sizeof VERBS / sizeof *VERBS)
			return 0;
	call->verb = VERBS[verb].verb;
	if (call->verb == EXEC)
		return read_exec(argc, argv, at + 1, call);
	for (at++; at < argc;) {
		if (!is_option(argv[at])) {
			if (given == VERBS[verb].most)
				return 0;
			words[given++] = argv[at++];
			continue;
		}
		if (!read_option(VERBS[verb].options, argc, argv, &at, &said))
			return 0;
		if (call->verb == RUN)
			call->bundle = said.value;
		else
			*(call->verb == KILL ? &call->all : &call->force) = said.on;
	}
	call->id = words[0];
	call->signal = signal_number(words[1] ? words[1] : "TERM");
	return given > 0 && call->signal;
}

int read_call(int argc, char **argv, struct call *call)
{
	struct said said;
	int at = 1;

	*call = (struct call){0};
	while (at < argc && is_option(argv[at])) {
		if (!read_option(GLOBALS, argc, argv, &at, &said))
			return 0;
		if (said.option == GLOBALS)
			call->root = said.value;
		else if (!strcmp(said.option->name, "cgroup-manager"))
			call->manager = said.value;
		else
			call->other = 1;
	}
	return at < argc && read_verb(argc, argv, at, call);
}
