"""A program for containers that speaks through NOTIFY_SOCKET: busybox has no datagrams on unix sockets."""

from __future__ import annotations

import subprocess
from pathlib import Path


def say_program(place: Path) -> Path:
    """The static program `say` in a new file of the directory `place`."""
    source = place / "say.c"
    source.write_text(SAY)
    subprocess.run(["gcc", "-static", "-O1", "-o", str(place / "say"), str(source)], check=True)
    return place / "say"


SAY = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* say TEXT [TIMES] [SIZE] [FDS]: TEXT, padded to SIZE, sent TIMES times, with FDS descriptors. */
int main(int argc, char **argv)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int times = argc > 2 ? atoi(argv[2]) : 1, size = argc > 3 ? atoi(argv[3]) : 0;
	int fds = argc > 4 ? atoi(argv[4]) : 0, s = socket(AF_UNIX, SOCK_DGRAM, 0);
	size_t length = strlen(argv[1]);
	char *text = calloc(1, length + (size_t)size + 1);
	union { char space[CMSG_SPACE(sizeof(int) * 250)]; struct cmsghdr align; } control;

	strcpy(to.sun_path, getenv("NOTIFY_SOCKET"));
	strcpy(text, argv[1]);
	if ((size_t)size > length) {
		memset(text + length, 'x', (size_t)size - length);
		length = (size_t)size;
	}
	struct iovec part = {text, length};
	struct msghdr message = {&to, sizeof to, &part, 1, NULL, 0, 0};
	if (fds) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fds);
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);
		*c = (struct cmsghdr){CMSG_LEN(sizeof(int) * (size_t)fds), SOL_SOCKET, SCM_RIGHTS};
		for (int i = 0; i < fds; i++)
			((int *)CMSG_DATA(c))[i] = 1;
	}
	while (times--)
		if (sendmsg(s, &message, 0) < 0) {
			perror("say");
			return 1;
		}
	return 0;
}
"""
