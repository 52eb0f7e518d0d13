/* The bytes of a record: checked whole before anything is believed. Touches nothing but memory. */
#include <string.h>

#include "shortcut.h"

/* Names of files: each begins with a slash and ends with a NUL. */
static int are_paths(const struct text *list)
{
	for (const char *at = list->at, *end = at + list->length; at < end; at += strlen(at) + 1)
		if (*at != '/')
			return 0;
	return 1;
}

/* plan/ops.py, encode_text: the text at *at, which moves behind it; it ends with a NUL. */
int read_text(const char *bytes, size_t size, size_t *at, struct text *text)
{
	uint32_t length;

	if (size - *at < sizeof length)
		return 0;
	memcpy(&length, bytes + *at, sizeof length);
	*at += sizeof length;
	if (size - *at <= length || bytes[*at + length])
		return 0;
	*text = (struct text){bytes + *at, length};
	*at += (size_t)length + 1;
	return 1;
}

int read_record(const char *bytes, size_t size, struct record *record)
{
	const size_t magic = sizeof RECORD_MAGIC - 1;
	size_t at = magic + sizeof record->numbers;

	if (size < at || memcmp(bytes, RECORD_MAGIC, magic))
		return 0;
	memcpy(record->numbers, bytes + magic, sizeof record->numbers);
	for (int i = 0; i < RECORD_TEXTS; i++) {
		struct text *text = &record->texts[i];
		if (!read_text(bytes, size, &at, text))
			return 0;
		if (i != T_LEAVES && i != T_PARENTS && memchr(text->at, 0, text->length))
			return 0;
	}
	for (int i = T_LEAVES; i <= T_PARENTS; i++) {
		const struct text *list = &record->texts[i];
		if (list->length && (list->at[list->length - 1] || !are_paths(list)))
			return 0;
	}
	if (!record->texts[T_STARTED].length || !record->texts[T_BOOT].length)
		return 0;
	const struct text *freezer = &record->texts[T_FREEZER];
	if (freezer->length && *freezer->at != '/')
		return 0;
	return at == size && record->numbers[N_SIZE] == size && record->numbers[N_PID] > 0 &&
	       record->numbers[N_PID] <= INT32_MAX;
}
