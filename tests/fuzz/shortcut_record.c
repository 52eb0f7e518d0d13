/* libFuzzer target: the reader of a container's record, and a launcher that only touches what it is given. */
#include <stdlib.h>
#include <string.h>

#include "shortcut.h"
#include "own_memory.h"

static volatile uint64_t sum;

static void check(int good)
{
	if (!good)
		abort();
}

static void read_one(const char *bytes, size_t size)
{
	struct record record;

	if (!read_record(bytes, size, &record))
		return;
	check(record.numbers[N_SIZE] == size && record.numbers[N_PID] && record.numbers[N_PID] <= INT32_MAX);
	for (int i = 0; i < RECORD_TEXTS; i++) {
		const struct text *text = &record.texts[i];
		const int is_list = i == T_LEAVES || i == T_PARENTS;
		check(is_list || strlen(text->at) == text->length);
		for (const char *at = text->at; is_list && at < text->at + text->length; at += strlen(at) + 1) {
			check(*at == '/' && strrchr(at, '/'));
			sum += strlen(at);
		}
		for (size_t at = 0; at <= text->length; at++)
			sum += (unsigned char)text->at[at];
	}
	check(record.texts[T_STARTED].length && record.texts[T_BOOT].length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	read_in_own_memory(data, size, RECORD_MAGIC, read_one);
	return 0;
}
