#include "admin/events_internal.h"

#include "admin/answer.h"
#include "keytrail/prove.h"

#include <event2/http.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One question for a proof. */
struct proof_call {
	struct reader_job job; /* first: a reader_job * is cast to this */
	LIST_ENTRY(proof_call) link;
	struct events *events;
	struct evhttp_request *req;
	uint64_t seq;
	struct mail done;
	/* from the reader */
	struct prove proof;
	enum prove_result result;
	struct err err;
};

/* ---- on the reader's thread ---- */

static int
prove(struct reader_job *job, int dirfd, struct err *err)
{
	struct proof_call *c = (struct proof_call *)job;

	c->result = prove_event(dirfd, c->seq, &c->proof, err);
	return c->result == PROVE_DONE ? 0 : -1;
}

static void
on_done(struct reader_job *job, int rc, const struct err *err)
{
	struct proof_call *c = (struct proof_call *)job;

	(void)rc;
	c->err = *err;
	mailbox_post(c->events->mailbox, &c->done);
}

/* ---- answers ---- */

static int
put_proof(const struct proof_call *c, struct buf *out)
{
	return buf_printf(out, "{\"seq\":%" PRIu64 ",\"line\":", c->seq) == -1 ||
		       answer_put_string(buf_slice(&c->proof.line), out) == -1 ||
		       buf_printf(out, ",\"proof\":") == -1 ||
		       answer_put_string(buf_slice(&c->proof.text), out) == -1
		   ? -1
		   : buf_append(out, "}\n", 2);
}

static int
put_refusal(const struct proof_call *c, struct buf *out)
{
	return buf_printf(out, "{\"error\":") == -1 ||
		       answer_put_string(slice_of(c->err.msg), out) == -1
		   ? -1
		   : buf_printf(out, ",\"covered\":%" PRIu64 "}\n", c->proof.covered);
}

static void
proof_free(struct proof_call *c)
{
	LIST_REMOVE(c, link);
	prove_fini(&c->proof);
	free(c);
}

/* A request whose connection is gone is freed by its answer. */
static void
deliver_done(struct mail *m)
{
	static const int statuses[] = { [PROVE_DONE] = 200,
		[PROVE_NO_LINE] = 404,
		[PROVE_UNSIGNED] = 409,
		[PROVE_FAILED] = 503 };
	struct proof_call *c = (struct proof_call *)((char *)m - offsetof(struct proof_call, done));
	struct evhttp_connection *conn = evhttp_request_get_connection(c->req);
	struct buf body = BUF_INIT;
	int rc = c->result == PROVE_DONE ? put_proof(c, &body) : put_refusal(c, &body);

	if (conn != NULL)
		evhttp_connection_set_closecb(conn, NULL, NULL);
	if (c->result == PROVE_FAILED)
		log_warn(c->events->log, "proof_failed", "%s", c->err.msg);
	answer_take(c->req, statuses[c->result], ANSWER_JSON, &body, rc);
	proof_free(c);
}

/* ---- requests ---- */

static int
parse(struct evhttp_request *req, uint64_t *seq)
{
	const char *text = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(req));

	if (text == NULL || strncmp(text, "seq=", 4) != 0)
		return -1;
	return slice_to_u64(slice_of(text + 4), seq) == -1 || *seq == 0 ? -1 : 0;
}

bool
events_prove(struct events *e, struct evhttp_request *req, char *shape, size_t n)
{
	struct proof_call *c;
	uint64_t seq;

	if (parse(req, &seq) == -1) {
		events_refuse(req, 400, "wanted seq=<number of an event>");
		return false;
	}
	if ((c = calloc(1, sizeof(*c))) == NULL) {
		events_refuse(req, 503, "memory is short");
		return false;
	}
	c->job.run = prove;
	c->job.done = on_done;
	c->done.deliver = deliver_done;
	c->events = e;
	c->req = req;
	c->seq = seq;
	LIST_INSERT_HEAD(&e->proofs, c, link);
	if (!reader_submit(e->reader, &c->job)) {
		events_refuse(req, 503, "too many queries run");
		proof_free(c);
		return false;
	}
	events_watch(req, &c->job);
	snprintf(shape, n, "seq");
	return true;
}

void
events_free_proofs(struct events *e)
{
	struct proof_call *c, *next;

	for (c = LIST_FIRST(&e->proofs); c != NULL; c = next) {
		next = LIST_NEXT(c, link);
		events_forget(c->req);
		proof_free(c);
	}
}
