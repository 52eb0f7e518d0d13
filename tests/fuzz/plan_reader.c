/* libFuzzer target: the reader of plans, and an interpreter that only touches what it is given. */
#include <stdlib.h>
#include <string.h>

#include "rt.h"

static volatile uint64_t sum;

static void check(int good)
{
	if (!good)
		abort();
}

static void touch_list(const struct field *f)
{
	char **all = list_strings(f, "extra");
	uint32_t count = 0;

	check(all && !strcmp(all[0], "extra"));
	for (char **item = all + 1; *item; item++, count++)
		sum += strlen(*item);
	check(count == f->n); /* what was counted when the plan was opened is what an op gets */
	free(all);
}

static void touch(char type, const struct field *f)
{
	switch (type) {
	case 'U': sum += f->u; break;
	case 'S': check(strlen(f->s) == f->n); break;
	case 'B':
		for (uint32_t i = 0; i < f->n; i++)
			sum += (unsigned char)f->s[i];
		break;
	case 'L': touch_list(f); break;
	case 'V':
		for (uint32_t i = 0; i < f->n; i++)
			sum += vector_item(f, i);
		break;
	default: abort();
	}
}

static void read_plan(const unsigned char *bytes, size_t size)
{
	struct plan plan;
	struct op op;

	if (plan_open(&plan, bytes, size))
		return;
	for (uint32_t index = 0; index < plan.count; index++) {
		plan_next(&plan, &op);
		check(op.code <= OP_LAST && strlen(op.types) <= OP_FIELDS);
		for (size_t i = 0; op.types[i]; i++)
			touch(op.types[i], &op.f[i]);
	}
	check(plan.next == plan.end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* In memory of its own size, so that one byte beyond it is seen. */
	unsigned char *bytes = size ? malloc(size) : NULL;
	uint32_t length = (uint32_t)size;

	if (!size)
		return 0; /* main() refuses an empty file */
	check(bytes != NULL);
	memcpy(bytes, data, size);
	read_plan(bytes, size);
	/* Few changed plans have the right length still: with it, the fuzzer comes further. */
	if (size >= 12) {
		memcpy(bytes, "rtplan1", 8);
		memcpy(bytes + 8, &length, 4);
		read_plan(bytes, size);
	}
	free(bytes);
	return 0;
}
