#include "data/mailbox.h"

#include <event2/event.h>

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct mailbox {
	pthread_mutex_t lock;
	struct mail *head;
	struct mail **tail;
	int fd;
	struct event *readable;
};

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct mailbox *mb = arg;
	struct mail *m, *next;
	uint64_t n;

	(void)what;
	if (read(fd, &n, sizeof(n)) == -1)
		return;
	pthread_mutex_lock(&mb->lock);
	m = mb->head;
	mb->head = NULL;
	mb->tail = &mb->head;
	pthread_mutex_unlock(&mb->lock);
	for (; m != NULL; m = next) {
		next = m->next;
		/* From here on the mail may be posted again. */
		atomic_store_explicit(&m->queued, false, memory_order_release);
		m->deliver(m);
	}
}

struct mailbox *
mailbox_new(struct event_base *base, struct err *err)
{
	struct mailbox *mb = calloc(1, sizeof(*mb));

	if (mb == NULL) {
		err_set_errno(err, "mailbox");
		return NULL;
	}
	pthread_mutex_init(&mb->lock, NULL);
	mb->tail = &mb->head;
	if ((mb->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) == -1) {
		err_set_errno(err, "mailbox: eventfd");
		goto fail;
	}
	mb->readable = event_new(base, mb->fd, EV_READ | EV_PERSIST, on_readable, mb);
	if (mb->readable == NULL || event_add(mb->readable, NULL) == -1) {
		err_set(err, "mailbox: memory is short");
		goto fail;
	}
	return mb;
fail:
	mailbox_free(mb);
	return NULL;
}

void
mailbox_free(struct mailbox *mb)
{
	if (mb == NULL)
		return;
	if (mb->readable != NULL)
		event_free(mb->readable);
	if (mb->fd != -1)
		close(mb->fd);
	pthread_mutex_destroy(&mb->lock);
	free(mb);
}

void
mailbox_post(struct mailbox *mb, struct mail *m)
{
	uint64_t one = 1;
	bool was_empty;

	if (atomic_exchange_explicit(&m->queued, true, memory_order_acq_rel))
		return;
	m->next = NULL;
	pthread_mutex_lock(&mb->lock);
	was_empty = mb->head == NULL;
	*mb->tail = m;
	mb->tail = &m->next;
	pthread_mutex_unlock(&mb->lock);
	/* EAGAIN means that the counter is full, so the reader is awake anyway. */
	if (was_empty && write(mb->fd, &one, sizeof(one)) == -1)
		return;
}
