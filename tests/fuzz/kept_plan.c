/* libFuzzer target: the reader of kept plans, and a launcher that only touches what it is given. */
#include <stdlib.h>
#include <string.h>

#include "kept.h"

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
	for (int i = K_KEYRING_AT; i <= K_EXEC_AT; i++) {
		check(numbers[i] < length && end_of_text(&kept, numbers[i]) < length);
		check(!numbers[i] || numbers[i] >= 16);
	}
	if (numbers[K_EXEC_AT])
		check(end_of_text(&kept, numbers[K_KEYRING_AT]) < numbers[K_FIND_AT] &&
		      numbers[K_FIND_AT] < numbers[K_EXEC_AT]);
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
	/* In memory of its own size, so that one byte beyond it is seen. */
	char *bytes = malloc(size + !size);
	uint64_t length = size;

	check(bytes != NULL);
	memcpy(bytes, data, size);
	read_one(bytes, size);
	/* Few changed ones have the right length still: with it, the fuzzer comes further. */
	if (size >= 16) {
		memcpy(bytes, KEPT_MAGIC, 8);
		memcpy(bytes + 8, &length, 8);
		read_one(bytes, size);
	}
	free(bytes);
	return 0;
}
