/* Messages between rt-init and the runtime: one SOCK_SEQPACKET socket, one packet a message. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rt.h"

/* rootless_rt/init/launch.py unpacks the same layout: five i32, 24 bytes of call name, then text. */
struct packet {
	int32_t type, op, value, err, reserved;
	char call[24];
	char text[4096];
};

union rights {
	char buf[CMSG_SPACE(sizeof(int) * 253)];
	struct cmsghdr align;
};

void carry_fd(struct msghdr *msg, union one_fd *room, int fd)
{
	struct cmsghdr *c;

	memset(room, 0, sizeof *room);
	msg->msg_control = room;
	msg->msg_controllen = sizeof room->buf;
	c = CMSG_FIRSTHDR(msg);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
}

void send_message(struct run *r, int type, int value, int err, const char *call, const char *text, int fd)
{
	struct packet p = {.type = type, .op = (int32_t)r->index, .value = value, .err = err};
	union one_fd room;
	size_t length = strlen(text);
	struct iovec iov = {&p, 0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (r->sock < 0)
		return;
	if (length > sizeof p.text)
		length = sizeof p.text;
	memcpy(p.text, text, length);
	snprintf(p.call, sizeof p.call, "%s", call);
	iov.iov_len = offsetof(struct packet, text) + length;
	if (fd >= 0)
		carry_fd(&msg, &room, fd);
	while (sendmsg(r->sock, &msg, MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

_Noreturn void fail(struct run *r, const char *call, const char *text)
{
	send_message(r, MSG_ERROR, 0, errno, call, text, -1);
	_exit(1);
}

void note(struct run *r, const char *call, const char *text)
{
	send_message(r, MSG_NOTE, 0, errno, call, text, -1);
}

/* The runtime's "go on": 0, or -1 when it is gone or sends anything else. */
int receive_go(int sock, int32_t *pid)
{
	int32_t go[2];
	ssize_t n;

	do
		n = recv(sock, go, sizeof go, MSG_TRUNC); /* the packet's own length, were it longer */
	while (n < 0 && errno == EINTR);
	if (n != sizeof go || go[0] != MSG_GO)
		return -1;
	*pid = go[1];
	return 0;
}

/*
 * Take a plan and the descriptors of the slots from `first` on; 0, or -1 when the runtime is gone. The plan comes in
 * the first packet, or, if it is a large one, as a sealed file in memory, whose descriptor is the first.
 */
int receive_plan(struct run *r, struct received *p, uint64_t first)
{
	union rights control;
	uint64_t slots = 0, at = 0;
	int fds[253];

	*p = (struct received){.fd = -1};
	do {
		struct iovec iov[] = {{&slots, sizeof slots}, {p->bytes, p->bytes ? 0 : INLINE_PLAN}};
		if (!p->bytes && !(iov[1].iov_base = malloc(INLINE_PLAN)))
			return -1;
		struct msghdr msg = {
		    .msg_iov = iov, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control};
		ssize_t n = recvmsg(r->sock, &msg, MSG_CMSG_CLOEXEC);
		p->bytes = iov[1].iov_base;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < (ssize_t)sizeof slots || msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || first > MAX_SLOTS ||
		    slots > MAX_SLOTS - first)
			return -1;
		if (n > (ssize_t)sizeof slots)
			p->size = (size_t)n - sizeof slots;
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		if (!c && !p->size)
			return -1;
		if (c && (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS))
			return -1;
		size_t count = c ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
		if (c)
			memcpy(fds, CMSG_DATA(c), count * sizeof(int));
		for (size_t i = 0; i < count; i++) {
			if (p->fd < 0 && !p->size)
				p->fd = fds[i];
			else if (at < slots)
				set_slot(r, first + at++, fds[i]);
			else
				return -1;
		}
	} while ((p->fd < 0 && !p->size) || at < slots);
	return 0;
}
