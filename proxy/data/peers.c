#include "data/peers.h"

#include "keytrail/clock.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>

#define BUCKET_BITS 14
_Static_assert(PEERS_BUCKETS == 1u << BUCKET_BITS, "a bucket's number has so many bits");

struct peer {
	LIST_ENTRY(peer) link;
	TAILQ_ENTRY(peer) idle; /* nobody holds it */
	unsigned char source[16];
	unsigned held; /* under the lock */
	atomic_uint connections;
	/* When the next one would be due if they came evenly. */
	_Atomic int64_t requests_due, refusals_due;
};

LIST_HEAD(peer_list, peer);
TAILQ_HEAD(peer_queue, peer);

struct peers {
	pthread_mutex_t lock;
	uint64_t seed[4]; /* nobody outside may choose what collides */
	unsigned n;
	struct peer_queue idle; /* since longest first */
	struct peer_list buckets[PEERS_BUCKETS];
};

bool
peers_source(const unsigned char address[16], unsigned char out[16])
{
	static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };

	memcpy(out, address, 16);
	if (memcmp(address, mapped, sizeof(mapped)) == 0)
		return true;
	memset(out + 8, 0, 8);
	return false;
}

void
peers_source_text(const unsigned char address[16], char out[PEERS_TEXT_SIZE])
{
	unsigned char source[16];

	if (peers_source(address, source)) {
		inet_ntop(AF_INET, source + 12, out, PEERS_TEXT_SIZE);
		return;
	}
	inet_ntop(AF_INET6, source, out, PEERS_TEXT_SIZE);
	strcat(out, "/64");
}

/* Multiply-add with random multipliers is universal; the rest breaks up its regular series. */
static unsigned
bucket_of(const struct peers *p, const unsigned char source[16])
{
	uint32_t words[4];
	uint64_t h = 0;

	memcpy(words, source, sizeof(words));
	for (int i = 0; i < 4; i++)
		h += p->seed[i] * words[i];
	h = (h ^ h >> 32) * 0x9e3779b97f4a7c15ULL;
	return (unsigned)(h >> (64 - BUCKET_BITS));
}

unsigned
peers_bucket(const struct peers *p, const unsigned char address[16])
{
	unsigned char source[16];

	peers_source(address, source);
	return bucket_of(p, source);
}

/* Rates recover within a second of the last that holds it. */
static void
forget_idle(struct peers *p, int64_t now)
{
	struct peer *peer;

	while ((peer = TAILQ_FIRST(&p->idle)) != NULL && atomic_load(&peer->requests_due) <= now &&
	       atomic_load(&peer->refusals_due) <= now) {
		TAILQ_REMOVE(&p->idle, peer, idle);
		LIST_REMOVE(peer, link);
		free(peer);
		p->n--;
	}
}

static struct peer *
find(struct peer_list *bucket, const unsigned char source[16])
{
	struct peer *peer;

	LIST_FOREACH(peer, bucket, link)
	if (memcmp(peer->source, source, sizeof(peer->source)) == 0)
		return peer;
	return NULL;
}

static struct peer *
add(struct peers *p, struct peer_list *bucket, const unsigned char source[16], int64_t now)
{
	struct peer *peer;

	forget_idle(p, now);
	if (p->n == PEERS_MAX) {
		errno = ENOSPC;
		return NULL;
	}
	if ((peer = calloc(1, sizeof(*peer))) == NULL)
		return NULL;
	memcpy(peer->source, source, sizeof(peer->source));
	LIST_INSERT_HEAD(bucket, peer, link);
	TAILQ_INSERT_TAIL(&p->idle, peer, idle);
	p->n++;
	return peer;
}

struct peers *
peers_new(struct err *err)
{
	struct peers *p = calloc(1, sizeof(*p));

	if (p == NULL) {
		err_set(err, "memory is short");
		return NULL;
	}
	pthread_mutex_init(&p->lock, NULL);
	TAILQ_INIT(&p->idle);
	while (getrandom(p->seed, sizeof(p->seed), 0) != sizeof(p->seed))
		continue;
	return p;
}

void
peers_free(struct peers *p)
{
	if (p == NULL)
		return;
	forget_idle(p, INT64_MAX);
	assert(p->n == 0);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

struct peer *
peers_hold(struct peers *p, const unsigned char address[16], int64_t now)
{
	unsigned char source[16];
	struct peer_list *bucket;
	struct peer *peer;

	peers_source(address, source);
	pthread_mutex_lock(&p->lock);
	bucket = &p->buckets[bucket_of(p, source)];
	if ((peer = find(bucket, source)) == NULL)
		peer = add(p, bucket, source, now);
	if (peer != NULL && peer->held++ == 0)
		TAILQ_REMOVE(&p->idle, peer, idle);
	pthread_mutex_unlock(&p->lock);
	return peer;
}

void
peers_drop(struct peers *p, struct peer *peer)
{
	pthread_mutex_lock(&p->lock);
	assert(peer->held > 0);
	if (--peer->held == 0)
		TAILQ_INSERT_TAIL(&p->idle, peer, idle);
	pthread_mutex_unlock(&p->lock);
}

bool
peer_connect(struct peer *peer, unsigned limit)
{
	if (atomic_fetch_add(&peer->connections, 1) < limit || limit == 0)
		return true;
	peer_disconnect(peer);
	return false;
}

void
peer_disconnect(struct peer *peer)
{
	atomic_fetch_sub(&peer->connections, 1);
}

static bool
within_rate(_Atomic int64_t *due, unsigned rate, int64_t now)
{
	int64_t then = atomic_load_explicit(due, memory_order_relaxed), next;

	if (rate == 0)
		return true;
	do {
		if (then - now > CLOCK_NS_PER_S - CLOCK_NS_PER_S / rate)
			return false;
		next = (then > now ? then : now) + CLOCK_NS_PER_S / rate;
	} while (!atomic_compare_exchange_weak_explicit(
	    due, &then, next, memory_order_relaxed, memory_order_relaxed));
	return true;
}

bool
peer_may_request(struct peer *peer, unsigned rate, int64_t now)
{
	return within_rate(&peer->requests_due, rate, now);
}

bool
peer_may_record(struct peer *peer, unsigned rate, int64_t now)
{
	return within_rate(&peer->refusals_due, rate, now);
}

unsigned
peers_count(struct peers *p)
{
	unsigned n;

	pthread_mutex_lock(&p->lock);
	n = p->n;
	pthread_mutex_unlock(&p->lock);
	return n;
}

unsigned
peers_longest(struct peers *p)
{
	unsigned longest = 0;

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < PEERS_BUCKETS; i++) {
		struct peer *peer;
		unsigned n = 0;

		LIST_FOREACH(peer, &p->buckets[i], link)
		n++;
		longest = n > longest ? n : longest;
	}
	pthread_mutex_unlock(&p->lock);
	return longest;
}
