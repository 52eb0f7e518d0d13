/* For targets that read the bytes of a file with a magic of eight bytes and its own size behind that. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Has them read in memory of their own size, so that one byte beyond it is seen. */
static inline void read_in_own_memory(const uint8_t *data, size_t size, const char *magic,
				      void (*read_one)(const char *, size_t))
{
	char *bytes = malloc(size + !size);
	uint64_t length = size;

	if (!bytes)
		abort();
	memcpy(bytes, data, size);
	read_one(bytes, size);
	/* Few changed ones have the right size still: with it, the fuzzer comes further. */
	if (size >= 16) {
		memcpy(bytes, magic, 8);
		memcpy(bytes + 8, &length, 8);
		read_one(bytes, size);
	}
	free(bytes);
}
