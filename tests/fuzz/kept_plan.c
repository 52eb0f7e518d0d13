/* libFuzzer target: the reader of kept plans, and a launcher that only touches what it is given. */
#include <stdlib.h>
#include <string.h>

#include "kept.h"
#include "own_memory.h"

static volatile uint64_t sum;

static void check(int good)
{
	if (!good)
		abort();
}

static void touch(const struct text *text)
{
	for (size_t at = 0; at <= text->length; at++)
		sum += (unsigned char)text->at[at];
	check(!text->at[text->length]);
}

/* As kept_init.c, start_helper. */
static void touch_words(const struct text *words)
{
	for (const char *at = words->at, *end = at + words->length; at < end; at += strlen(at) + 1)
		sum += strlen(at);
}

static void read_one(const char *bytes, size_t size)
{
	struct kept kept;
	struct item item;
	size_t at = 0;
	int got;

	if (!read_kept(bytes, size, &kept))
		return;
	for (int i = 0; i < KEPT_TEXTS; i++)
		touch(&kept.texts[i]);
	touch_words(&kept.texts[P_UID_HELPER]);
	touch_words(&kept.texts[P_GID_HELPER]);
	const uint64_t *numbers = kept.numbers;
	const size_t length = kept.texts[P_PLAN].length;
	touch_words(&kept.texts[P_JOINED]);
	struct place place = {0};
	uint64_t behind = 0;
	for (size_t i = 0; place_of_id(&kept, i, &place); i++, behind = place.end)
		check(behind <= place.op && place.op < place.field && place.field < place.end && place.end < length);
	const uint64_t find = numbers[K_FIND_AT], exec = numbers[K_EXEC_AT];
	check(!exec || (behind <= find && find + FIRST_FIELD <= exec && exec + FIRST_FIELD < length));
	for (const char *at = kept.texts[P_SETTINGS].at; at < kept.texts[P_SETTINGS].at + kept.texts[P_SETTINGS].length;)
		for (int i = 0; i < 3; i++)
			at += strlen(at) + 1;
	for (const char *at = kept.texts[P_SLOTS].at; at < kept.texts[P_SLOTS].at + kept.texts[P_SLOTS].length;)
		for (int i = 0; i < 2; i++)
			at += strlen(at) + 1;
	touch_words(&kept.texts[P_CGROUPS]);
	check(length >= 12);
	while ((got = next_item(&kept.texts[P_EVIDENCE], &at, &item)) > 0) {
		touch(&item.name);
		touch(&item.found);
		check(strlen(item.name.at) == item.name.length);
		check(item.kind != E_LINES || memchr(item.found.at, '\n', item.found.length));
		check(item.kind != E_IDS || item.found.length >= 24);
	}
	check(!got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	read_in_own_memory(data, size, KEPT_MAGIC, read_one);
	return 0;
}
