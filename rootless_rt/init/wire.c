/* The plan's bytes: checked whole before the first op is performed, then read op by op. */
#include <stdlib.h>
#include <string.h>

#include "rt.h"

static const char *const types_of[OP_LAST + 1] = {
#define X(code, name, types) [code] = types,
	OP_TABLE(X)
#undef X
};

/* Take n bytes, or return NULL when fewer are left. */
static const unsigned char *take(struct plan *p, size_t n)
{
	const unsigned char *at = p->next;

	if ((size_t)(p->end - p->next) < n)
		return NULL;
	p->next += n;
	return at;
}

static int take_u32(struct plan *p, uint32_t *value)
{
	const unsigned char *at = take(p, 4);

	if (!at)
		return -1;
	memcpy(value, at, 4);
	return 0;
}

/* A text holds no NUL but the one behind it, so that C sees what Python wrote. */
static int take_text(struct plan *p, const char **text, uint32_t *length)
{
	const unsigned char *at;

	if (take_u32(p, length) || *length == UINT32_MAX || !(at = take(p, (size_t)*length + 1)))
		return -1;
	if (at[*length] || memchr(at, 0, *length))
		return -1;
	*text = (const char *)at;
	return 0;
}

static int take_field(struct plan *p, char type, struct field *f)
{
	const unsigned char *at;
	struct field item;

	memset(f, 0, sizeof *f);
	switch (type) {
	case 'U':
		if (!(at = take(p, 8)))
			return -1;
		memcpy(&f->u, at, 8);
		return 0;
	case 'S':
		return take_text(p, &f->s, &f->n);
	case 'B':
		if (take_u32(p, &f->n) || !(at = take(p, f->n)))
			return -1;
		f->s = (const char *)at;
		return 0;
	case 'L':
		if (take_u32(p, &f->n))
			return -1;
		f->list = p->next;
		for (uint32_t i = 0; i < f->n; i++)
			if (take_text(p, &item.s, &item.n))
				return -1;
		f->end = p->next;
		return 0;
	case 'V':
		if (take_u32(p, &f->n))
			return -1;
		f->list = p->next;
		if (f->n > (size_t)(p->end - p->next) / 8) /* first: the product may not fit a 32-bit size_t */
			return -1;
		return take(p, (size_t)f->n * 8) ? 0 : -1;
	}
	return -1;
}

static int take_op(struct plan *p, struct op *op)
{
	struct plan body;
	uint32_t size;
	const unsigned char *at;

	if (take_u32(p, &op->code) || take_u32(p, &size) || !(at = take(p, size)))
		return -1;
	if (op->code > OP_LAST || !types_of[op->code])
		return -1;
	op->types = types_of[op->code];
	body.next = at;
	body.end = at + size;
	for (size_t i = 0; op->types[i]; i++)
		if (take_field(&body, op->types[i], &op->f[i]))
			return -1;
	return body.next == body.end ? 0 : -1;
}

int plan_open(struct plan *p, const unsigned char *data, size_t size)
{
	struct op op;
	uint32_t length;
	struct plan start;

	p->next = data;
	p->end = data + size;
	const unsigned char *magic = take(p, 8);
	if (!magic || memcmp(magic, "rtplan1", 8) || take_u32(p, &length) || length != size ||
	    take_u32(p, &p->count))
		return -1;
	p->reconfigures = 0;
	start = *p;
	for (uint32_t i = 0; i < start.count; i++) {
		if (take_op(&start, &op))
			return -1;
		p->reconfigures |= op.code == OP_MORE || (op.code == OP_REMOUNT && op.f[F_REMOUNT_DATA].n);
	}
	return start.next == start.end ? 0 : -1;
}

void plan_next(struct plan *p, struct op *op)
{
	take_op(p, op);
}

static void fill_array(const struct field *f, const char *extra, char **array)
{
	struct plan body = {.next = f->list, .end = f->end};
	size_t count = 0;
	const char *text;
	uint32_t length;

	if (extra)
		array[count++] = (char *)extra;
	for (uint32_t i = 0; i < f->n && !take_text(&body, &text, &length); i++)
		array[count++] = (char *)text;
	array[count] = NULL;
}

/* A NULL-terminated array of the list's strings, with `extra` in front when it is given; NULL without memory. */
char **list_strings(const struct field *f, const char *extra)
{
	char **array = calloc((size_t)f->n + 2, sizeof *array);

	if (array)
		fill_array(f, extra, array);
	return array;
}

/* The same, in `room` where that is enough: for so few, the C library would map and unmap a page each time. */
char **few_strings(const struct field *f, const char *extra, char *room[FEW])
{
	if (f->n > FEW - 2)
		return list_strings(f, extra);
	fill_array(f, extra, room);
	return room;
}

uint64_t vector_item(const struct field *f, uint32_t i)
{
	uint64_t value;

	memcpy(&value, f->list + (size_t)i * 8, 8);
	return value;
}
