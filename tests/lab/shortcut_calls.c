/*
 * Says how the launcher understands command lines. On stdin, for each: the number of words as one byte, then each
 * with a NUL behind it. On stdout, for each, a line: "-", or verb, id, signal, all, force,
 * root, bundle or process, whether other global options are given, and the first word of a command, with tabs between.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shortcut.h"

#define WORDS 256

int main(void)
{
	static char words[WORDS][4096];
	char *argv[WORDS + 1] = {"rt"};
	struct call call;
	int count;

	while ((count = getchar()) != EOF) {
		for (int i = 0; i < count; i++) {
			int letter;
			size_t length = 0;
			while ((letter = getchar()) > 0 && length < sizeof words[i] - 1)
				words[i][length++] = (char)letter;
			words[i][length] = '\0';
			argv[i + 1] = words[i];
		}
		argv[count + 1] = NULL;
		if (read_call(count + 1, argv, &call))
			printf("%d\t%s\t%d\t%d\t%d\t%s\t%s\t%d\t%s\n", call.verb, call.id, call.signal, call.all,
			       call.force, call.root ? call.root : "", call.bundle ? call.bundle : call.process ? call.process : "", call.other || call.manager,
			       call.words && call.words[0] ? call.words[0] : "");
		else
			puts("-");
		fflush(stdout);
	}
	return 0;
}
