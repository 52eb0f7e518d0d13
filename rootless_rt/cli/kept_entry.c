/* The bytes of a kept plan: checked whole before anything is believed. Touches nothing but memory. */
#include <string.h>

#include "kept.h"

#define WIRE_HEAD 16 /* plan/ops.py, encode: magic, length, number of ops */

/* 1 with the next item, 0 at the end, -1 for what is none. */
int next_item(const struct text *evidence, size_t *at, struct item *item)
{
	static const unsigned char sizes[EVIDENCE_KINDS] = {[E_CODE] = 32, [E_NODE] = 48, [E_LIMIT] = 24};
	uint32_t head[3];

	if (*at == evidence->length)
		return 0;
	if (evidence->length - *at < sizeof head)
		return -1;
	memcpy(head, evidence->at + *at, sizeof head);
	*at += sizeof head;
	const size_t left = evidence->length - *at, name = head[1], found = head[2];
	if (head[0] >= EVIDENCE_KINDS || left < 2 || name > left - 2 || found > left - 2 - name)
		return -1;
	item->kind = head[0];
	item->name = (struct text){evidence->at + *at, name};
	item->found = (struct text){evidence->at + *at + name + 1, found};
	*at += name + found + 2;
	if (item->name.at[name] || item->found.at[found] || memchr(item->name.at, 0, name))
		return -1;
	const int is_path = item->kind <= E_ROOM;
	if (is_path && *item->name.at != '/')
		return -1;
	if (item->kind == E_VARIABLE && (!name || memchr(item->found.at, 0, found)))
		return -1;
	if (item->kind == E_LINES && !memchr(item->found.at, '\n', found))
		return -1;
	if (item->kind == E_IDS && (found < 24 || found % 8))
		return -1;
	return sizes[item->kind] && found != sizes[item->kind] ? -1 : 1;
}

static int is_evidence(const struct text *evidence)
{
	struct item item;
	size_t at = 0;
	int got, count = 0;

	while ((got = next_item(evidence, &at, &item)) > 0)
		count++;
	return !got && count;
}

/* Words, each ended by a NUL, of which the first is a program. */
static int is_command(const struct text *words)
{
	return !words->length || (*words->at == '/' && !words->at[words->length - 1]);
}

/* Whether an op can be there, with the length of a text, or the number of its words, where that is said to be. */
static int is_place(const struct kept *kept, uint64_t op, uint64_t field)
{
	const struct text *plan = &kept->texts[P_PLAN];
	uint32_t size;

	if (op < WIRE_HEAD || field < op + OP_HEAD || field > plan->length || plan->length - field < sizeof size)
		return 0;
	memcpy(&size, plan->at + field, sizeof size);
	return size < plan->length - field - sizeof size;
}

/* The place of the n-th text that the id ends: 0 when there are no more. */
int place_of_id(const struct kept *kept, size_t index, struct place *place)
{
	const struct text *ids = &kept->texts[P_IDS];
	uint32_t pair[2], size;

	if (index >= ids->length / sizeof pair)
		return 0;
	memcpy(pair, ids->at + index * sizeof pair, sizeof pair);
	memcpy(&size, kept->texts[P_PLAN].at + pair[1], sizeof size);
	*place = (struct place){pair[0], pair[1], pair[1] + sizeof size + size};
	return 1;
}

/* The texts that the id ends, and then the ops of a command's words: in that order. */
static int are_places(const struct kept *kept)
{
	const uint64_t find = kept->numbers[K_FIND_AT], exec = kept->numbers[K_EXEC_AT];
	const struct text *ids = &kept->texts[P_IDS];
	uint64_t behind = 0;
	uint32_t pair[2];
	struct place place;

	if (ids->length % sizeof pair)
		return 0;
	for (size_t i = 0; i < ids->length / sizeof pair; i++) {
		memcpy(pair, ids->at + i * sizeof pair, sizeof pair);
		if (!is_place(kept, pair[0], pair[1]) || pair[0] < behind)
			return 0;
		place_of_id(kept, i, &place);
		behind = place.end;
	}
	if (!(kept->numbers[K_FLAGS] & KEPT_EXEC) || kept->texts[P_PROCESS].length)
		return !find && !exec;
	return is_place(kept, find, find + OP_HEAD) && is_place(kept, exec, exec + OP_HEAD) && behind <= find &&
	       find + FIRST_FIELD <= exec;
}

/* So many words in each group, each ended by a NUL; the first of a group is a path. */
static int are_groups(const struct text *list, int words)
{
	int count = 0;

	if (list->length && list->at[list->length - 1])
		return 0;
	for (const char *at = list->at; at < list->at + list->length; at += strlen(at) + 1)
		if (count++ % words == 0 && *at != '/')
			return 0;
	return count % words == 0;
}

/* Names in /proc/PID/ns, each ended by a NUL. */
static int are_names(const struct text *names)
{
	for (size_t at = 0; at < names->length; at++)
		if (names->at[at] == '/' || names->at[at] == '.')
			return 0;
	return !names->length || !names->at[names->length - 1];
}

/* The texts without a NUL in them; the others are lists, or bytes of any kind. */
static const unsigned char IS_STRING[KEPT_TEXTS] = {
	[P_VERSION] = 1, [P_BUNDLE] = 1,  [P_ROOTFS] = 1,  [P_PROGRAM] = 1,	 [P_STATE] = 1,
	[P_UID_MAP] = 1, [P_GID_MAP] = 1, [P_MANAGER] = 1, [P_CGROUP_NAME] = 1,
};

int read_kept(const char *bytes, size_t size, struct kept *kept)
{
	const size_t magic = sizeof KEPT_MAGIC - 1;
	size_t at = magic + sizeof kept->numbers;
	const struct text *texts = kept->texts;

	if (size < at || memcmp(bytes, KEPT_MAGIC, magic))
		return 0;
	memcpy(kept->numbers, bytes + magic, sizeof kept->numbers);
	for (int i = 0; i < KEPT_TEXTS; i++) {
		if (!read_text(bytes, size, &at, &kept->texts[i]))
			return 0;
		if (IS_STRING[i] && memchr(texts[i].at, 0, texts[i].length))
			return 0;
	}
	if (at != size || kept->numbers[K_SIZE] != size)
		return 0;
	if (*texts[P_PROGRAM].at != '/' || texts[P_PLAN].length < WIRE_HEAD || texts[P_TOLERATED].length % 4)
		return 0;
	if (strchr(texts[P_CGROUP_NAME].at, '/') || !strcmp(texts[P_CGROUP_NAME].at, ".."))
		return 0;
	return is_command(&texts[P_UID_HELPER]) && is_command(&texts[P_GID_HELPER]) && are_names(&texts[P_JOINED]) &&
	       are_groups(&texts[P_CGROUPS], 1) && are_groups(&texts[P_SETTINGS], 3) &&
	       are_groups(&texts[P_SLOTS], 2) && are_places(kept) && is_evidence(&texts[P_EVIDENCE]);
}
