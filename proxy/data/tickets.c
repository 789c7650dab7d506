#include "data/tickets.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct tickets {
	atomic_uint refs;
	pthread_mutex_t lock;
	struct ticket_key current, previous;
	bool has_previous;
	int64_t born; /* when the current key began to seal */
};

static int
make_key(struct ticket_key *out)
{
	return RAND_bytes(out->name, sizeof(out->name)) == 1 &&
		       RAND_priv_bytes(out->cipher, sizeof(out->cipher)) == 1 &&
		       RAND_priv_bytes(out->mac, sizeof(out->mac)) == 1
		   ? 0
		   : -1;
}

struct tickets *
tickets_new(int64_t now, struct err *err)
{
	struct tickets *t = calloc(1, sizeof(*t));

	if (t == NULL || make_key(&t->current) == -1) {
		err_set(err, "session tickets: memory or random bytes are short");
		free(t);
		return NULL;
	}
	atomic_init(&t->refs, 1);
	pthread_mutex_init(&t->lock, NULL);
	t->born = now;
	return t;
}

struct tickets *
tickets_ref(struct tickets *t)
{
	atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
	return t;
}

void
tickets_unref(struct tickets *t)
{
	if (t == NULL || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
		return;
	pthread_mutex_destroy(&t->lock);
	OPENSSL_cleanse(t, sizeof(*t));
	free(t);
}

/* Two lifetimes after its birth even what a key sealed last has ended. */
static void
drop_old(struct tickets *t, int64_t now)
{
	if (t->has_previous && now - t->born >= TICKETS_LIFETIME_S) {
		OPENSSL_cleanse(&t->previous, sizeof(t->previous));
		t->has_previous = false;
	}
}

static int
rotate(struct tickets *t, int64_t now)
{
	struct ticket_key next;

	if (make_key(&next) == -1)
		return -1;
	t->has_previous = now - t->born < 2 * TICKETS_LIFETIME_S;
	if (t->has_previous)
		t->previous = t->current;
	t->current = next;
	t->born = now;
	OPENSSL_cleanse(&next, sizeof(next));
	return 0;
}

int
tickets_seal_key(struct tickets *t, int64_t now, struct ticket_key *out)
{
	int rc = 0;

	pthread_mutex_lock(&t->lock);
	drop_old(t, now);
	if (now - t->born >= TICKETS_LIFETIME_S)
		rc = rotate(t, now);
	if (rc == 0)
		*out = t->current;
	pthread_mutex_unlock(&t->lock);
	return rc;
}

enum ticket_age
tickets_open_key(
    struct tickets *t, const unsigned char name[16], int64_t now, struct ticket_key *out)
{
	enum ticket_age age = TICKET_UNKNOWN;

	pthread_mutex_lock(&t->lock);
	drop_old(t, now);
	if (memcmp(name, t->current.name, sizeof(t->current.name)) == 0) {
		if (now - t->born < 2 * TICKETS_LIFETIME_S)
			age = now - t->born < TICKETS_LIFETIME_S ? TICKET_CURRENT : TICKET_OLD;
		*out = t->current;
	} else if (t->has_previous &&
		   memcmp(name, t->previous.name, sizeof(t->previous.name)) == 0) {
		age = TICKET_OLD;
		*out = t->previous;
	}
	pthread_mutex_unlock(&t->lock);
	return age;
}
